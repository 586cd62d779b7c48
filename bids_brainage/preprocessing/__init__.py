"""Pure functions on arrays and affines: no Nipype, no command line, no file names to invent."""
