"""The tables of the state database, one version of them; no connection is opened here.

Money in integer micro-dollars, moments as UTC ISO-8601 text. An older database is brought to these
tables by :mod:`tasks.migrations`.
"""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()

#: Version of the tables, and the number of the newest step in ``tasks/migrations/versions``.
STATE_VERSION = 4

meta = sa.Table(
    "meta",
    metadata,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

#: Every mix ever judged or served, by digest.
mixes = sa.Table(
    "mixes",
    metadata,
    sa.Column("digest", sa.String(80), primary_key=True),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("manifest", sa.Text, nullable=False),
    sa.Column("added_at", sa.String(32), nullable=False),
)

#: One row a product: the desired mix and the epoch that fences controllers.
production = sa.Table(
    "production",
    metadata,
    sa.Column("product", sa.String(120), primary_key=True),
    sa.Column("mix_digest", sa.String(80), nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    #: Epoch that the router was last read back to show; behind ``epoch`` during a change.
    sa.Column("applied_epoch", sa.Integer, nullable=False),
    sa.Column("changed_at", sa.String(32), nullable=False),
    #: The candidate of a canary and its share of the traffic, above 0 and below 1; both or none.
    #: With ``mix_digest`` they are the routing that the router should have.
    sa.Column("candidate_digest", sa.String(80)),
    sa.Column("candidate_weight", sa.Float),
)

#: Append-only journal of every change of production.
transitions = sa.Table(
    "transitions",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("product", sa.String(120), nullable=False, index=True),
    sa.Column("epoch", sa.Integer, nullable=False),
    # adopt, promote, rollback, canary, reconcile, verified
    sa.Column("kind", sa.String(20), nullable=False),
    sa.Column("from_digest", sa.String(80)),
    sa.Column("to_digest", sa.String(80), nullable=False),
    sa.Column("actor", sa.String(200), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("run_id", sa.String(80)),
    sa.Column("at", sa.String(32), nullable=False),
    #: Share of the traffic that a canary gets with this line, ``None`` when none is on.
    sa.Column("weight", sa.Float),
    #: The canary that the line belongs to.
    sa.Column("canary_id", sa.String(80)),
)

freezes = sa.Table(
    "freezes",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("product", sa.String(120), nullable=False, index=True),
    sa.Column("mix_digest", sa.String(80), nullable=False),
    sa.Column("owner", sa.String(200), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    #: The run that holds the freeze, ``None`` for a person's freeze.
    sa.Column("run_id", sa.String(80)),
    sa.Column("from_at", sa.String(32), nullable=False),
    sa.Column("until_at", sa.String(32), nullable=False),
    sa.Column("released_at", sa.String(32)),
    sa.Column("released_by", sa.String(200)),
)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("run_id", sa.String(80), primary_key=True),
    sa.Column("product", sa.String(120), nullable=False, index=True),
    # running, waiting (for a person), finished, failed, stopped
    sa.Column("status", sa.String(20), nullable=False),
    sa.Column("verdict", sa.String(20)),
    sa.Column("candidate_digest", sa.String(80), nullable=False),
    sa.Column("baseline_digest", sa.String(80), nullable=False),
    sa.Column("started_at", sa.String(32), nullable=False),
    sa.Column("ended_at", sa.String(32)),
    #: Host and process that drive the run, to tell a dead run from a living one.
    sa.Column("host", sa.String(200), nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("result", sa.Text),  # the JSON that `imagegate run --json` prints
    #: Who asked for the run; the policy may forbid them to approve it.
    sa.Column("requester", sa.String(200)),
    #: Prefect's flow run: started again (crash, suspension) it goes on with its own gate run.
    sa.Column("flow_run_id", sa.String(40), index=True),
    #: A token of the process that drives the run; one that lost it stops by itself.
    sa.Column("driver", sa.String(40)),
    #: When the driver last said that it lives, UTC ISO-8601.
    sa.Column("heartbeat_at", sa.String(32)),
    #: Last line of the journal of production when the run began, 0 for none: what came after it,
    #: whatever the clocks said. ``None`` for runs of before.
    sa.Column("journal_id", sa.Integer),
)

#: One row a run that came to a verdict: testing the same mix again until it passes must not make
#: a wrong PROMOTE likelier, so what every test showed is remembered.
retests = sa.Table(
    "retests",
    metadata,
    sa.Column("run_id", sa.String(80), primary_key=True),
    sa.Column("product", sa.String(120), nullable=False),
    sa.Column("candidate_digest", sa.String(80), nullable=False, index=True),
    sa.Column("ended_at", sa.String(32), nullable=False),
    sa.Column("verdict", sa.String(20), nullable=False),
    #: Headline images of the candidate, and those that a PROMOTE takes for failures.
    sa.Column("images", sa.Integer, nullable=False),
    sa.Column("failures", sa.Integer, nullable=False),
    #: Cases of the headline sample as planned, and the seed that they were drawn by.
    sa.Column("cases", sa.Integer, nullable=False),
    sa.Column("seed", sa.BigInteger, nullable=False),
    #: The rules that it was judged by.
    sa.Column("policy_digest", sa.String(80), nullable=False),
    #: A person's word that the run says nothing about the mix, e.g. that a provider was ill.
    sa.Column("excused_at", sa.String(32)),
    sa.Column("excused_by", sa.String(200)),
    sa.Column("excused_why", sa.Text),
)

#: One row a run that a person has to decide about before production changes.
approvals = sa.Table(
    "approvals",
    metadata,
    sa.Column("run_id", sa.String(80), primary_key=True),
    sa.Column("product", sa.String(120), nullable=False, index=True),
    # pending, approved, rejected, expired
    sa.Column("status", sa.String(12), nullable=False),
    #: Why a person is asked, as a sentence.
    sa.Column("asked_because", sa.Text, nullable=False),
    sa.Column("requester", sa.String(200), nullable=False),
    sa.Column("requested_at", sa.String(32), nullable=False),
    sa.Column("expires_at", sa.String(32), nullable=False),
    sa.Column("decided_by", sa.String(200)),
    sa.Column("decided_at", sa.String(32)),
    sa.Column("decided_via", sa.String(20)),  # command, prefect, slack, expiry, rollback, run
    sa.Column("reason", sa.Text),
    #: The machine's own verdict with its reasons, as JSON: what the person was asked about.
    sa.Column("verdict", sa.Text, nullable=False),
    #: The policy's section ``approval`` as JSON: who may decide.
    sa.Column("rules", sa.Text, nullable=False),
    #: Last line of the journal of production (``transitions.id``) when the person was asked: a
    #: rollback after it takes the approval's ground away.
    sa.Column("journal_id", sa.Integer, nullable=False),
    #: Prefect's flow run that is suspended for the answer; ``None`` when the process ended.
    sa.Column("flow_run_id", sa.String(40), index=True),
)

#: One row a paid request: reserved at the worst price before it, booked at the actual after it.
ledger = sa.Table(
    "ledger",
    metadata,
    sa.Column("idempotency_key", sa.String(200), primary_key=True),
    sa.Column("run_id", sa.String(80), nullable=False, index=True),
    sa.Column("day", sa.String(10), nullable=False, index=True),
    sa.Column("arm", sa.String(20), nullable=False),
    sa.Column("case_id", sa.String(200), nullable=False),
    sa.Column("stage", sa.Integer, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("model", sa.String(200), nullable=False),
    sa.Column("status", sa.String(12), nullable=False),  # reserved, booked, unknown
    sa.Column("reserved_microusd", sa.BigInteger, nullable=False),
    sa.Column("booked_microusd", sa.BigInteger),
    sa.Column("at", sa.String(32), nullable=False),
)

#: Sums over the ledger by scope (``run:<run_id>``, ``day:<YYYY-MM-DD>``), kept in the transaction
#: of the rows; a missing sum is made from the rows.
spend_totals = sa.Table(
    "spend_totals",
    metadata,
    sa.Column("scope", sa.String(120), primary_key=True),
    sa.Column("microusd", sa.BigInteger, nullable=False),
)

#: Sums over the ledger by product (``*`` for all) and span of time, kept in the transaction of the
#: rows: days, weeks and months of the budgets' time zone. A missing sum is made from the rows.
spend_windows = sa.Table(
    "spend_windows",
    metadata,
    sa.Column("who", sa.String(120), primary_key=True),
    #: First moment, and the first one after it; UTC ISO-8601.
    sa.Column("start_at", sa.String(32), primary_key=True),
    sa.Column("end_at", sa.String(32), primary_key=True),
    sa.Column("microusd", sa.BigInteger, nullable=False),
)

#: Finished generations and their findings: what a resumed run does not do again.
journal = sa.Table(
    "journal",
    metadata,
    sa.Column("run_id", sa.String(80), primary_key=True),
    sa.Column("arm", sa.String(20), primary_key=True),
    sa.Column("case_id", sa.String(200), primary_key=True),
    sa.Column("generation", sa.Text, nullable=False),
    sa.Column("findings", sa.Text),
)

#: Images of the baseline by (mix, case, seed): a paired case then costs one image.
generation_cache = sa.Table(
    "generation_cache",
    metadata,
    sa.Column("mix_digest", sa.String(80), primary_key=True),
    sa.Column("case_digest", sa.String(80), primary_key=True),
    sa.Column("seed", sa.BigInteger, primary_key=True),
    sa.Column("generation", sa.Text, nullable=False),
)

#: Messages to people; written in the transaction of what they tell, delivered afterwards.
outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("dedup_key", sa.String(200), nullable=False, unique=True),
    sa.Column("run_id", sa.String(80)),
    sa.Column("channel", sa.String(40), nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("status", sa.String(12), nullable=False),  # pending, sending, delivered
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("last_error", sa.Text),
    sa.Column("created_at", sa.String(32), nullable=False),
    sa.Column("claimed_at", sa.String(32)),
    sa.Column("delivered_at", sa.String(32)),
    sa.Column("receipt", sa.Text),
    #: ``open`` starts a thread, ``reply`` goes into it, ``update`` rewrites its first message.
    sa.Column("kind", sa.String(12), nullable=False, server_default="open"),
    #: The thread it belongs to; messages of one thread are sent in order.
    sa.Column("thread", sa.String(200), index=True),
    sa.Column("product", sa.String(120)),
    sa.Column("severity", sa.String(12), nullable=False, server_default="info"),
    #: Not tried again earlier than this, after Slack refused the message itself.
    sa.Column("not_before", sa.String(32)),
    #: What it is about, e.g. ``gate.rollback`` or ``incident.opened``; routing overrides by it.
    #: How often every way refused the message itself; outages do not count.
    sa.Column("refusals", sa.Integer, nullable=False, server_default="0"),
    sa.Column("topic", sa.String(80), nullable=False, server_default=sa.text("''")),
)

#: Where the first message of a thread lies, once a channel has it.
alert_threads = sa.Table(
    "alert_threads",
    metadata,
    sa.Column("thread", sa.String(200), primary_key=True),
    sa.Column("channel", sa.String(80), nullable=False),
    sa.Column("ts", sa.String(40), nullable=False),
    sa.Column("opened_at", sa.String(32), nullable=False),
    #: When the first message was last written or rewritten.
    sa.Column("updated_at", sa.String(32)),
)

#: How well each way to people works (``slack:C012…``, ``webhook``, ``mail``), for all processes.
alert_channels = sa.Table(
    "alert_channels",
    metadata,
    sa.Column("name", sa.String(120), primary_key=True),
    #: Failures in a row; 0 when the last message went.
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("failing_since", sa.String(32)),
    #: Nothing is sent there earlier: a rate limit, or a pause after failures.
    sa.Column("not_before", sa.String(32)),
    #: True when ``not_before`` is the receiver's own wish (Retry-After).
    sa.Column("limited", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("last_error", sa.Text),
)

#: Buttons pressed in Slack: the same click is acted on once, and who asked for what stays known.
slack_clicks = sa.Table(
    "slack_clicks",
    metadata,
    #: Channel, message, button, user and moment of the click: Slack may deliver it twice.
    sa.Column("click", sa.String(200), primary_key=True),
    sa.Column("action", sa.String(20), nullable=False),
    sa.Column("user_id", sa.String(40), nullable=False),
    #: The button's value: what the click was about.
    sa.Column("about", sa.Text, nullable=False),
    sa.Column("at", sa.String(32), nullable=False),
    # taken, done, refused, failed
    sa.Column("status", sa.String(12), nullable=False),
    #: What was answered, as a sentence.
    sa.Column("outcome", sa.Text),
)

#: Alarms that may repeat: told once, counted while they last, closed when the cause is gone.
incidents = sa.Table(
    "incidents",
    metadata,
    sa.Column("key", sa.String(200), primary_key=True),
    #: Grows when an incident of the same key opens again; part of its thread's name.
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("product", sa.String(120)),
    sa.Column("severity", sa.String(12), nullable=False),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("status", sa.String(12), nullable=False),  # open, resolved
    sa.Column("count", sa.Integer, nullable=False),
    sa.Column("opened_at", sa.String(32), nullable=False),
    sa.Column("last_at", sa.String(32), nullable=False),
    sa.Column("resolved_at", sa.String(32)),
    sa.Column("acknowledged_by", sa.String(200)),
    sa.Column("acknowledged_at", sa.String(32)),
)

#: Schedules that were registered, to see a run that should have started and did not.
schedules = sa.Table(
    "schedules",
    metadata,
    sa.Column("name", sa.String(200), primary_key=True),
    sa.Column("product", sa.String(120)),
    sa.Column("cron", sa.String(120), nullable=False),
    sa.Column("timezone", sa.String(80), nullable=False),
    sa.Column("registered_at", sa.String(32), nullable=False),
    #: When a run of it last started, whatever came of it.
    sa.Column("started_at", sa.String(32)),
)

#: Signs of life of long-running parts of imagegate (the watchdog, the Slack listener), by name.
heartbeats = sa.Table(
    "heartbeats",
    metadata,
    sa.Column("name", sa.String(200), primary_key=True),
    sa.Column("at", sa.String(32), nullable=False),
    sa.Column("detail", sa.Text),
)


#: How often watchdogs started a run again after its process died, by flow run (or run without one).
resumes = sa.Table(
    "resumes",
    metadata,
    sa.Column("key", sa.String(200), primary_key=True),
    #: A resume is claimed by raising this from the value seen, so two watchdogs do not both act.
    sa.Column("count", sa.Integer, nullable=False),
    sa.Column("at", sa.String(32), nullable=False),
)

#: One row a walk of a candidate through the steps of a product's traffic.
canaries = sa.Table(
    "canaries",
    metadata,
    sa.Column("canary_id", sa.String(80), primary_key=True),
    sa.Column("product", sa.String(120), nullable=False, index=True),
    sa.Column("candidate_digest", sa.String(80), nullable=False),
    sa.Column("baseline_digest", sa.String(80), nullable=False),
    #: The gate run that allowed it, ``None`` when a person started it.
    sa.Column("run_id", sa.String(80)),
    # running, paused, holding, promoted, rolled_back, aborted, failed
    sa.Column("status", sa.String(20), nullable=False),
    #: Index of the step that it is on, and since when the router shows it.
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("step_started_at", sa.String(32)),
    #: The steps and rules as JSON, fixed at the start; what was counted so far, as JSON.
    sa.Column("plan", sa.Text, nullable=False),
    sa.Column("progress", sa.Text, nullable=False),
    #: What a person asked for and the driver has not done yet: pause, resume, skip, abort.
    sa.Column("control", sa.String(20)),
    sa.Column("control_by", sa.String(200)),
    sa.Column("control_reason", sa.Text),
    sa.Column("actor", sa.String(200), nullable=False),
    sa.Column("started_at", sa.String(32), nullable=False),
    sa.Column("ended_at", sa.String(32)),
    #: Why it ended, holds or waits, as a sentence.
    sa.Column("reason", sa.Text),
    #: A token of the process that drives it; one that lost it stops by itself.
    sa.Column("driver", sa.String(40)),
    sa.Column("heartbeat_at", sa.String(32)),
    sa.Column("flow_run_id", sa.String(40)),
)

#: One row a product that is watched after its release.
watches = sa.Table(
    "watches",
    metadata,
    sa.Column("product", sa.String(120), primary_key=True),
    #: The mix that is watched, and the rules that it is watched by.
    sa.Column("mix_digest", sa.String(80), nullable=False),
    sa.Column("policy_digest", sa.String(80), nullable=False),
    #: The detectors' state as JSON; no outcome before ``counted_until`` is counted again.
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("counted_until", sa.String(32)),
    # watching, alarm, blind, stopped
    sa.Column("status", sa.String(20), nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("since", sa.String(32), nullable=False),
    sa.Column("updated_at", sa.String(32), nullable=False),
)

#: Rehearsals of a rollback.
drills = sa.Table(
    "drills",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("product", sa.String(120), nullable=False, index=True),
    sa.Column("router", sa.String(40), nullable=False),
    sa.Column("kind", sa.String(20), nullable=False),  # dry, shadow
    sa.Column("ok", sa.Boolean, nullable=False),
    #: Seconds from the trigger to the verified rollback.
    sa.Column("seconds", sa.Float, nullable=False),
    #: What was done and how long it took, as JSON.
    sa.Column("steps", sa.Text, nullable=False),
    sa.Column("actor", sa.String(200), nullable=False),
    sa.Column("at", sa.String(32), nullable=False),
)
