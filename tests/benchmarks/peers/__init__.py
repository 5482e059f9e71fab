"""What runs in another environment than ours."""
