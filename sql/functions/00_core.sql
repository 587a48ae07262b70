-- The clock and the doorbell.

create or replace function rowbeat.moved_clock() returns timestamptz
language plpgsql volatile parallel safe set search_path = '' as $$
begin
    return clock_timestamp() + current_setting('rowbeat.clock_offset')::interval;
end $$;
comment on function rowbeat.moved_clock() is 'The server''s clock, moved by the setting rowbeat.clock_offset.';

-- The clock of everything: the server's. Tests move it by the setting rowbeat.clock_offset (an interval). Volatile, so
-- that every row gets its own time; in conditions write (select rowbeat.now_()).
-- How it is fast: setting up a conversion from text costs a microsecond in every statement, also where none takes place; hence a function for it.
create or replace function rowbeat.now_() returns timestamptz
language sql volatile parallel safe as $$
    select case when current_setting('rowbeat.clock_offset', true) <> '' then rowbeat.moved_clock() else clock_timestamp() end
$$;
comment on function rowbeat.now_() is 'The time: the server''s clock, movable in tests by the setting rowbeat.clock_offset.';

-- Promises: whoever sleeps wakes up after this transaction's commit; nobody is notified while no daemon sleeps.
-- Called by: the triggers and functions that make work, once per statement.
-- Locks: the doorbell key, shared, without waiting, to the end of the transaction. A sleeper holds or awaits it
--   exclusively; when the shared lock is granted, every daemon is awake or will scan after this commit.
-- Never fails the caller: no NOTIFY when its queue is more than half full or rowbeat.doorbell is off (sessions that use
--   two-phase commit); the poll finds the row.
create or replace function rowbeat.ring(p_topic text) returns void
language plpgsql volatile set search_path = '' as $$
begin
    if current_setting('rowbeat.doorbell', true) = 'off' then
        return;
    end if;
    if pg_try_advisory_xact_lock_shared(1919907682, 1) then
        return;
    end if;
    if pg_notification_queue_usage() < 0.5 then
        perform pg_notify('rowbeat', p_topic);
    end if;
end $$;
comment on function rowbeat.ring(text) is 'Wakes sleeping daemons after commit; the topic (task, change) is only a hint.';

-- ring, as a part of a condition: true. A transaction rings once, however many rows ask: the setting rowbeat.rung says so to its end, or that of the
-- savepoint whose NOTIFY it was. Called by: fill_task_defaults, row by row, where somebody sleeps; hence no search_path of its own.
create or replace function rowbeat.has_rung(p_topic text) returns boolean
language plpgsql volatile as $$
begin
    if pg_catalog.current_setting('rowbeat.rung', true) is distinct from p_topic then
        perform rowbeat.ring(p_topic), pg_catalog.set_config('rowbeat.rung', p_topic, true);
    end if;
    return true;
end $$;
comment on function rowbeat.has_rung(text) is 'Wakes sleeping daemons after commit, as a part of a condition.';

-- Promises: every daemon hears the topic after commit, asleep or not. For rare events (an edited schedule, a
-- cancellation), where the commit lock of NOTIFY does not matter. Same exceptions as ring.
create or replace function rowbeat.announce(p_topic text) returns void
language plpgsql volatile set search_path = '' as $$
begin
    if coalesce(current_setting('rowbeat.doorbell', true), '') <> 'off' and pg_notification_queue_usage() < 0.5 then
        perform pg_notify('rowbeat', p_topic);
    end if;
end $$;
comment on function rowbeat.announce(text) is 'Tells every daemon after commit that something rare changed: schedule, channel, definition, cancel.';

-- The slot of a ring for a day: days since 1970-01-01 modulo 32.
create or replace function rowbeat.slot_of(p_day date) returns smallint
language sql immutable parallel safe as $$
    select ((p_day - date '1970-01-01') % 32)::smallint
$$;
comment on function rowbeat.slot_of(date) is 'Which slot of a ring table holds this day.';
