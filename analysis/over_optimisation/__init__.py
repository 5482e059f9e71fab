"""Does the training reward still rise while the measure falls? An audit of each arm, and signs of reward hacking."""
