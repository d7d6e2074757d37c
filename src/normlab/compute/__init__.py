"""What everything runs on: device, precision, compilation, several processes."""
