"""From specifications to a plan: what is refused, which jobs there are, and whether the comparison is fair."""
