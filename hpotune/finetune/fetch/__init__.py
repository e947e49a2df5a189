"""What `hpotune fetch` does on the login node: finds out which files a study needs, downloads and verifies them."""
