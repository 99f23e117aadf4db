"""Everything between a connection and the batcher: routes, bodies, answers, errors.

::

    exchange       one request and its response: id, limits, Server-Timing
    body           chunks ──▶ a whole body, within limits
    payload        body ──▶ encoded images, in three forms        multipart   the form's parts
    inference      decode, submit, await: the road of every form
    predict        the hot route
    protocol       what other servers' clients speak              rpc         the same over gRPC
    health · exposition · documentation                           the routes that FastAPI answers
    problems       the one table from reasons to statuses, and error bodies
"""
