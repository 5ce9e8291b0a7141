"""What people call: explain, whole data sets, lint; what is kept between calls, and what is refused."""
