"""What several commands share. Importing it is quick: torch and mmcv are imported by the modules that need them."""
