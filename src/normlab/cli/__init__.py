"""What a user types besides `dvc`."""
