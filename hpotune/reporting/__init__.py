"""Results of a study as tables and as JSON. Reads rows and item scores; decides nothing."""
