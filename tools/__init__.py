"""Commands, one file each, and in folders what they need. `engine` is what several commands share."""
