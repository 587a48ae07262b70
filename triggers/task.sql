-- The light trigger of the task table: defaults from the definition, and refusal of an unknown one by name.
-- Promises: a plain insert of (definition, payload) is enough; nobody inserts a running task. SQLSTATEs: RB001.
create or replace function rowbeat.fill_task_defaults() returns trigger
language plpgsql set search_path = '' as $$
declare
    v_queue         text;
    v_priority      smallint;
    v_max_attempts  smallint;
begin
    select d.queue, d.priority, d.max_attempts into v_queue, v_priority, v_max_attempts
    from rowbeat.task_definition d where d.name = new.definition;
    if not found then
        raise exception 'task definition "%" does not exist', new.definition using errcode = 'RB001',
            hint = 'insert into rowbeat.task_definition (name, executor, function) values (...) first.';
    end if;
    new.queue := coalesce(new.queue, v_queue);
    new.priority := coalesce(new.priority, v_priority);
    new.max_attempts := coalesce(new.max_attempts, v_max_attempts);
    new.created_at := rowbeat.now_();
    new.run_at := coalesce(new.run_at, new.created_at);
    new.payload := coalesce(new.payload, '{}');
    new.state := 'waiting';
    new.claimed_by := null;
    return new;
end $$;
comment on function rowbeat.fill_task_defaults() is 'Fills queue, priority, attempts and times of a new task from its definition.';

create or replace trigger fill_task_defaults before insert on rowbeat.task
    for each row execute function rowbeat.fill_task_defaults();

-- Promises: a sleeping daemon wakes after the commit. Once per statement.
create or replace function rowbeat.ring_for_tasks() returns trigger
language plpgsql set search_path = '' as $$
begin
    perform rowbeat.ring('task');
    return null;
end $$;
comment on function rowbeat.ring_for_tasks() is 'Rings the doorbell for new tasks.';

create or replace trigger ring_for_tasks after insert on rowbeat.task
    for each statement execute function rowbeat.ring_for_tasks();

-- Promises: a definition with live tasks is not removed or renamed away from under them. SQLSTATEs: RB005.
create or replace function rowbeat.keep_used_definition() returns trigger
language plpgsql set search_path = '' as $$
begin
    if (tg_op = 'DELETE' or new.name <> old.name)
        and exists (select from rowbeat.task t where t.definition = old.name) then
        raise exception 'task definition "%" still has live tasks', old.name using errcode = 'RB005',
            hint = 'Cancel them or wait for them first.';
    end if;
    return case tg_op when 'DELETE' then old else new end;
end $$;
comment on function rowbeat.keep_used_definition() is 'Refuses to remove or rename a definition that has live tasks.';

create or replace trigger keep_used_definition before delete or update of name on rowbeat.task_definition
    for each row execute function rowbeat.keep_used_definition();

-- Promises: daemons learn of new and changed definitions at once.
create or replace function rowbeat.announce_definition() returns trigger
language plpgsql set search_path = '' as $$
begin
    perform rowbeat.announce('definition');
    return null;
end $$;
comment on function rowbeat.announce_definition() is 'Tells the daemons that a definition changed.';

create or replace trigger announce_definition after insert or update or delete on rowbeat.task_definition
    for each statement execute function rowbeat.announce_definition();
