-- The light trigger of the task table: defaults from the definition, and refusal of an unknown one by name.
-- Promises: a plain insert of (definition, payload) is enough; nobody inserts a running task. No row for a trigger that outlived its plugin.
-- SQLSTATEs: RB001.
-- No search_path of its own: everything is qualified, and changing it back and forth was a tenth of the cost of an insert.
create or replace function rowbeat.fill_task_defaults() returns trigger
language plpgsql as $$
begin
    -- One statement: each expression of its own would be set up anew in every transaction.
    select coalesce(new.queue, d.queue), coalesce(new.priority, d.priority), coalesce(new.max_attempts, d.max_attempts),
        coalesce(new.payload, '{}'), n.at, coalesce(new.run_at, n.at), 'waiting', null,
        case when new.serial_key is not null then 'arriving' end
    into new.queue, new.priority, new.max_attempts, new.payload, new.created_at, new.run_at, new.state, new.claimed_by, new.parked
    from (select rowbeat.now_() as at) n, rowbeat.task_definition d
    where d.name = new.definition;
    if not found and rowbeat.outlived_plugin(new.definition) then
        return null;
    elsif not found then
        raise exception 'task definition "%" does not exist', new.definition using errcode = 'RB001',
            hint = 'insert into rowbeat.task_definition (name, executor, function) values (...) first.';
    end if;
    return new;
end $$;
comment on function rowbeat.fill_task_defaults() is 'Fills queue, priority, attempts and times of a new task from its definition.';

create or replace trigger fill_task_defaults before insert on rowbeat.task
    for each row execute function rowbeat.fill_task_defaults();

-- Promises: a sleeping daemon wakes after the commit. Once per statement.
create or replace function rowbeat.ring_for_tasks() returns trigger
language plpgsql as $$
begin
    perform rowbeat.ring('task');
    return null;
end $$;
comment on function rowbeat.ring_for_tasks() is 'Rings the doorbell for new tasks.';

-- What rowbeat.ring does first is the trigger's condition, for its speed: while no daemon sleeps, no function is called.
create or replace trigger ring_for_tasks after insert on rowbeat.task
    for each statement
    when (current_setting('rowbeat.doorbell', true) is distinct from 'off' and not pg_try_advisory_xact_lock_shared(1919907682, 1))
    execute function rowbeat.ring_for_tasks();
