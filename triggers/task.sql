-- The light trigger of the task table: defaults from the definition, refusal of an unknown one by name, and the doorbell.
-- Promises: a plain insert of (definition, payload) is enough; nobody inserts a running task; a sleeping daemon wakes after the commit.
--   No row for a trigger that outlived its plugin. SQLSTATEs: RB001.
-- How it is fast: one trigger and one statement, which also asks for the doorbell's key (whether it is switched off is asked where somebody
--   sleeps); values go through variables, for a SELECT into the row's own fields copies the row. No search_path of its own: everything is
--   qualified, and changing it back and forth was a tenth of the cost of an insert.
create or replace function rowbeat.fill_task_defaults() returns trigger
language plpgsql as $$
declare
    v_queue         text;
    v_priority      smallint;
    v_max_attempts  smallint;
    v_now           timestamptz;
begin
    select d.queue, d.priority, d.max_attempts, rowbeat.now_() into v_queue, v_priority, v_max_attempts, v_now
    from rowbeat.task_definition d
    where d.name = new.definition and (pg_try_advisory_xact_lock_shared(1919907682, 1) or rowbeat.has_rung('task'));
    if not found and rowbeat.outlived_plugin(new.definition) then
        return null;
    elsif not found then
        raise exception 'task definition "%" does not exist', new.definition using errcode = 'RB001',
            hint = 'insert into rowbeat.task_definition (name, executor, function) values (...) first.';
    end if;
    new.queue := coalesce(new.queue, v_queue);
    new.priority := coalesce(new.priority, v_priority);
    new.max_attempts := coalesce(new.max_attempts, v_max_attempts);
    new.payload := coalesce(new.payload, '{}');
    new.created_at := v_now;
    new.run_at := coalesce(new.run_at, v_now);
    new.state := 'waiting';
    new.claimed_by := null;
    new.parked := case when new.serial_key is not null then 'arriving' end;
    return new;
end $$;
comment on function rowbeat.fill_task_defaults() is 'Fills queue, priority, attempts and times of a new task from its definition, and rings the doorbell.';

create or replace trigger fill_task_defaults before insert on rowbeat.task
    for each row execute function rowbeat.fill_task_defaults();

drop trigger if exists ring_for_tasks on rowbeat.task;
drop function if exists rowbeat.ring_for_tasks();
