"""What partition-based searches share: cells of the unit cube, trees over them, and their replay."""
