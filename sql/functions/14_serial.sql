-- Serial keys: tasks with the same key run one at a time, in the order of their ids, whatever their definitions. A new one is
-- `arriving`; a daemon gives it the turn (parked is null) or lets it wait (`serial`). Whoever has the turn keeps it to its end,
-- through retries and snoozes; the transaction that ends it passes the turn on. Enqueuing waits for nobody.
--
-- serial_lock has a row for each key with live tasks; whoever passes a turn on holds that row's lock, and admission lets keys
-- alone whose row is locked. Only one daemon admits at a time, so arrivals are seen in the order of their ids.

-- Promises: the next task of a key has its turn, or nobody (the row goes), or the next one is locked by somebody who cancels it
--   just now: then the turn is vacant and admission passes it on later. Returns whether somebody has it.
-- Called by: release_serial and admit_serial, which hold the serial_lock row. Waits for nobody.
create or replace function rowbeat.promote_serial(p_serial_key text) returns boolean
language plpgsql volatile set search_path = '' as $$
declare
    v_id  bigint;
begin
    select t.id into v_id from rowbeat.task t
    where t.serial_key = p_serial_key and t.parked = 'serial' order by t.id limit 1;
    if not found then
        delete from rowbeat.serial_lock l where l.serial_key = p_serial_key;
        return false;
    end if;
    perform from rowbeat.task t where t.id = v_id and t.parked = 'serial' for update skip locked;
    if not found then
        update rowbeat.serial_lock l set task_id = null where l.serial_key = p_serial_key;
        return false;
    end if;
    update rowbeat.task t set parked = null where t.id = v_id;
    update rowbeat.serial_lock l set task_id = v_id where l.serial_key = p_serial_key;
    return true;
end $$;
comment on function rowbeat.promote_serial(text) is 'Gives the turn of a serial key to its next task.';

-- Promises: the turn of an ended task is passed on, if it had it.
-- Called by: finish_task and the batched completion. Locks: the serial_lock row, then the next task's row.
create or replace function rowbeat.release_serial(p_task_id bigint, p_serial_key text) returns void
language plpgsql volatile set search_path = '' as $$
begin
    perform from rowbeat.serial_lock l where l.serial_key = p_serial_key and l.task_id = p_task_id for update;
    if found and rowbeat.promote_serial(p_serial_key) then
        perform rowbeat.ring('task');
    end if;
end $$;
comment on function rowbeat.release_serial(bigint, text) is 'Passes the turn of a serial key on.';

-- Promises: up to a thousand arrivals have their turn or wait for it, in the order of their ids; vacant turns are passed on.
-- Called by: claim_tasks, before it looks for work. One at a time: who finds another one at it goes on.
-- Locks: the arriving tasks, then a serial_lock row each; waits for nobody. A key of which one arrival or its row is locked by somebody
--   is left alone for this time, so that a later arrival cannot overtake.
create or replace function rowbeat.admit_serial() returns void
language plpgsql volatile set search_path = '' as $$
declare
    v_task      record;
    v_key       text;
    v_left      text[] := '{}';
    v_admitted  boolean := false;
begin
    if not exists (select from rowbeat.task t where t.parked = 'arriving')
        and not exists (select from rowbeat.serial_lock l where l.task_id is null) then
        return;
    elsif not pg_try_advisory_xact_lock(1919907682, 4) then
        return;
    end if;
    for v_key in select l.serial_key from rowbeat.serial_lock l where l.task_id is null for update skip locked loop
        v_admitted := rowbeat.promote_serial(v_key) or v_admitted;
    end loop;
    for v_task in select t.id, t.serial_key from rowbeat.task t where t.parked = 'arriving' order by t.id limit 1000 loop
        continue when v_task.serial_key = any (v_left);
        perform from rowbeat.task t where t.id = v_task.id and t.parked = 'arriving' for update skip locked;
        if not found then
            v_left := v_left || v_task.serial_key;
        elsif exists (select from rowbeat.serial_lock l where l.serial_key = v_task.serial_key) then
            perform from rowbeat.serial_lock l where l.serial_key = v_task.serial_key for share skip locked;
            if found then
                update rowbeat.task t set parked = 'serial' where t.id = v_task.id;
            else
                v_left := v_left || v_task.serial_key;  -- its turn is being passed on at this moment
            end if;
        else
            insert into rowbeat.serial_lock (serial_key, task_id) values (v_task.serial_key, v_task.id);
            update rowbeat.task t set parked = null where t.id = v_task.id;
            v_admitted := true;
        end if;
    end loop;
    if v_admitted then
        perform rowbeat.ring('task');
    end if;
end $$;
comment on function rowbeat.admit_serial() is 'Gives arrivals with a serial key their turn, or lets them wait for it.';

-- Promises: slots and turns whose task is gone (deleted by hand, restored from a copy) are free again. Returns how many.
-- Called by: every daemon, now and then. Locks: those rows, waiting for nobody.
create or replace function rowbeat.release_orphans() returns bigint
language sql volatile set search_path = '' as $$
    with slot as (
        select s.scope, s.n from rowbeat.limit_slot s
        where s.task_id is not null and s.scope not like 'rate/%'
            and not exists (select from rowbeat.task t where t.id = s.task_id and t.state = 'running')
        for update of s skip locked
    ), turn as (
        select l.serial_key from rowbeat.serial_lock l
        where l.task_id is not null and not exists (select from rowbeat.task t where t.id = l.task_id)
        for update of l skip locked
    ), freed as (
        update rowbeat.limit_slot s set task_id = null from slot where s.scope = slot.scope and s.n = slot.n returning 1
    ), vacant as (
        update rowbeat.serial_lock l set task_id = null from turn where l.serial_key = turn.serial_key returning 1
    )
    select (select count(*) from freed) + (select count(*) from vacant)
$$;
comment on function rowbeat.release_orphans() is 'Frees slots of limits and turns of serial keys whose task is gone.';
