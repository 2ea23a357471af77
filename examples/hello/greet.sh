#!/bin/sh
# An attachment: it travelled with the job, in an archive, and was unpacked beside it.
echo "Greetings from an attachment."
