"""What measures weights."""
