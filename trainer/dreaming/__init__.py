"""Deep Dream: objectives over layer names, gradient ascent on images, and pictures of what layers see."""
