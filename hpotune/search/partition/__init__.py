"""What SOO, BaMSOO, DIRECT and FDA share: cells of the unit cube, the tree, and its replay from a study."""
