"""Compiled networks as something to look at: one page of pictures and tables, pictures alone, or a trace."""
