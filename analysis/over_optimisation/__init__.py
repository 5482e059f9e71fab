"""Does the proxy still rise while the measure falls? The audit of each arm, and the signs of reward hacking."""
