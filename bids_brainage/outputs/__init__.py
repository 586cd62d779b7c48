"""Every file name, table and description of the output dataset."""
