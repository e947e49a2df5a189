"""What a study came to, for people (tables) and for programs (JSON). Reads rows and items; decides nothing."""
