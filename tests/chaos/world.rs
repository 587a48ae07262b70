//! What the storm rages over: the definitions, queues and limits, the function that most tasks run, and the program of the others.

use super::history::{Rules, Scope};

/// Every definition. Most run `public.work`; `settled` and `program` run a program that does nothing, and settling writes the effect
/// of the former; of the latter there is only the record. `poison` kills the daemon that runs it.
pub const DEFINITIONS: [&str; 12] = [
    "plain", "later", "slow", "flaky", "limited", "rated", "narrow_a", "narrow_b", "unique", "settled",
    "program", "poison",
];
/// The queues.
pub const QUEUES: [&str; 2] = ["default", "narrow"];

const SQL: &str = "
    create table public.effect (task_id bigint, attempt integer, began timestamptz, ended timestamptz);
    -- Waits ms, raises in the first fail attempts, else writes its effect in the task's transaction. The error tells when it began.
    create function public.work(payload jsonb) returns jsonb language plpgsql as $$
    declare
        v_began    timestamptz := clock_timestamp();
        v_task     bigint := current_setting('rowbeat.task_id');
        v_attempt  integer := current_setting('rowbeat.attempt');
    begin
        perform pg_sleep((payload ->> 'ms')::float8 / 1000);
        if v_attempt <= (payload ->> 'fail')::integer then
            raise exception '%', (extract(epoch from v_began) * 1000000)::bigint;
        end if;
        insert into public.effect values (v_task, v_attempt, v_began, clock_timestamp());
        return payload;
    end $$;
    create function public.settle(task jsonb, outcome jsonb, responses jsonb[]) returns jsonb language plpgsql as $$
    begin
        if outcome ->> 'outcome' = 'done' then
            insert into public.effect values ((task ->> 'id')::bigint, (task ->> 'attempt')::integer, clock_timestamp(), clock_timestamp());
        end if;
        return null;
    end $$;
    insert into rowbeat.queue (name, concurrency) values ('narrow', 4);
    insert into rowbeat.task_definition (name, executor, function, queue, max_attempts, backoff, backoff_max, concurrency, rate, unique_until)
    select d.name, 'sql', 'public.work', d.queue, 20, '50 milliseconds', '400 milliseconds', d.concurrency, d.rate, 'finish'
    from (values ('plain', 'default', null::integer, null::integer), ('later', 'default', null, null), ('slow', 'default', null, null),
        ('flaky', 'default', null, null), ('limited', 'default', 3, null), ('rated', 'default', null, 25),
        ('narrow_a', 'narrow', 2, null), ('narrow_b', 'narrow', null, null), ('unique', 'default', null, null)
    ) d (name, queue, concurrency, rate);
    insert into rowbeat.task_definition (name, executor, effect, settle_function, max_attempts, backoff, backoff_max, concurrency)
    values ('settled', 'exec', '{\"program\": \"nothing\"}', 'public.settle', 20, '50 milliseconds', '400 milliseconds', null),
        ('program', 'exec', '{\"program\": \"nothing\"}', null, 20, '50 milliseconds', '400 milliseconds', 2),
        ('poison', 'exec', '{\"program\": \"poison\"}', null, 20, '50 milliseconds', '400 milliseconds', null);
";

/// What daemons need in their configuration. The poison makes sure that its parent is a daemon still: one that died a moment ago has
/// left it to somebody else.
pub const PROGRAMS: &str = r#"
[programs.nothing]
path = "/bin/true"
[programs.poison]
path = "/bin/sh"
args = ["-c", 'read -r name < "/proc/$PPID/comm" && test "$name" = rowbeat && kill -9 "$PPID"']
"#;

/// The statements that make it.
pub fn sql() -> &'static str {
    SQL
}

/// The limits in it.
pub fn rules() -> Rules {
    Rules {
        concurrency: [
            (Scope::Definition("limited".into()), 3),
            (Scope::Definition("narrow_a".into()), 2),
            (Scope::Definition("program".into()), 2),
            (Scope::Queue("narrow".into()), 4),
        ]
        .into(),
        rate: [("rated".into(), (25, 1_000_000))].into(),
        silent: ["program".into()].into(),
    }
}

/// How many waiting tasks of a definition are enough: what a limit lets through in half a minute, about.
pub fn enough(definition: &str) -> i64 {
    match definition {
        "poison" => 1,
        "rated" => 150,
        "limited" | "narrow_a" | "narrow_b" | "program" => 300,
        _ => 800,
    }
}
