"""The machinery: plan, place, watch, resume."""
