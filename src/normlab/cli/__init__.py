"""What a user types besides `dvc`: demo, study, predict."""
