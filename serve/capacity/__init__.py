"""The capacity queue's decisions: who may run where and when, by tokens. Pure: time and chance come as arguments.

need.py            what one request takes, and what a line offers
ledger.py          what each line has left, and the leases that took it
line_index.py      the lines that could admit a request, without a look at each
prefix_index.py    which lines hold the beginning of a prompt
output_lengths.py  how long an answer will be
fair_order.py      whose turn it is
drain.py           how fast waiting tokens go, hence how long a wait will be
    queue.py           all of these as one: admit, let wait, refuse
"""
