"""Limits of the web page that tools/webapp.py has no option for."""
CHARACTERS = 20_000  # of class names in all lists of a request: 200 names of 100 characters
MORE = 'tools/demo.py takes more.'  # class names, for the messages
DECODING = 10  # seconds; an image of 16 million pixels takes one or two
HEAT_SIDE = 256  # pixels of the longer side of a score map that is sent to the browser
KEPT = 3600  # seconds that an upload is kept at least, and at most twice as long

MAX_JSON = 2 * 2**20  # bytes of a request without a file
FORM_BYTES = 2**16  # bytes around the file of an upload
MAX_UPLOADS = 8  # received at the same time, in memory; others wait
TIMEOUT = 5  # seconds without a byte, after which a request or a connection without one is dropped
MIN_SPEED = 2**18  # bytes per second: a body must arrive in its size / MIN_SPEED + EXTRA_SECONDS
EXTRA_SECONDS = 10
MAX_CONNECTIONS = 256  # a browser opens up to six
