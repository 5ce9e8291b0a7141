"""Everything that knows TensorFlow, or what is private in Keras: trace, record, run, differentiate."""
