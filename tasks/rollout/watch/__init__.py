"""The watch over what serves: change detection, blindness, and what is done about it."""
