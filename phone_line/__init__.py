"""The inside of the phone line: a room for each concern, and a room only knows those below it.

`main.py` beside this package is the function that is served. From top to bottom:

    turn, consult           one webhook of a call; a question to the backend, and who is held
    line                    a line, made from its settings
    checks                  a flow rehearsed before the first call
    events, owner, calls    what others hear of a call, and what its owner can look at
    questions, push         a question as work; a late answer, and who speaks it
    whisper, health         whoever picks up a phone that we ring; the health page
    visit, answers          a webhook on its way; an answer, rendered and settled
    telling, slow_work      events as work; work that takes longer than a webhook may
    twiml                   a reply as TwiML
    backend                 your own service or a language model (protocol, model)
    conversation            what happens next in a call: pure (understanding, entrance, outcome)
    plan, flow, words       all that decides: the table of steps, the sentences of a language
    webhook                 what Twilio sends: signature, form, fields
    recordings, links       a recording that plays by a signed link
    records                 the table of everything that stands in Redis
    cells                   read and settle, over one of two stores: upstash, sqlite
    http                    HTTP with one deadline over everything (connection, http_answer)
    server, reception       how the server starts, and where connections wait

settings, values, hours, text, speakable, recognition, pages, log and deadline serve them all. What
a lower room needs from a higher one is handed to it. There is no circle; tests/tools/test_house.py
looks.
"""
