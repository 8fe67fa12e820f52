"""The 2015 package: its surface, its wire, and old and new mixed."""
