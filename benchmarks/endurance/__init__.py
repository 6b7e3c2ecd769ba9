"""How long without a fault: an hour of odd frames, a job that is killed again and again, any bytes as input files."""
