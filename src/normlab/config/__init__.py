"""What the study is: its params, its paths, what dvc.yaml says."""
