"""The statistics of a study's answer: numbers and arrays in, numbers out. Imports numpy and scipy only."""
