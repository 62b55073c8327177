"""What hostile requests and faults can't do, counted for the scorecard."""
