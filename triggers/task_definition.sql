-- The triggers of definitions, and of queues and features, which hold for all tasks of a kind.

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

-- Promises: the slots of a definition's limits are as many as the limits allow; tasks that run already take theirs.
create or replace function rowbeat.fit_definition_slots() returns trigger
language plpgsql set search_path = '' as $$
begin
    if tg_op = 'DELETE' or tg_op = 'UPDATE' and old.name <> new.name then
        perform rowbeat.fit_slots('concurrency/' || old.name, null), rowbeat.fit_slots('rate/' || old.name, null);
    end if;
    if tg_op = 'DELETE' then
        return null;
    end if;
    if tg_op = 'INSERT' or (old.name, old.concurrency) is distinct from (new.name, new.concurrency) then
        perform rowbeat.fit_slots('concurrency/' || new.name, new.concurrency,
            rowbeat.mark_running(array(
                select t.id from rowbeat.task t where new.concurrency is not null and t.definition = new.name and t.state = 'running')));
    end if;
    if tg_op = 'INSERT' or (old.name, old.rate) is distinct from (new.name, new.rate) then
        perform rowbeat.fit_slots('rate/' || new.name, new.rate);
    end if;
    perform rowbeat.ring('task');
    return null;
end $$;
comment on function rowbeat.fit_definition_slots() is 'Keeps the slots of a definition''s limits as many as they allow.';

create or replace trigger fit_definition_slots after insert or update or delete on rowbeat.task_definition
    for each row execute function rowbeat.fit_definition_slots();

-- The same for queues.
create or replace function rowbeat.fit_queue_slots() returns trigger
language plpgsql set search_path = '' as $$
begin
    if tg_op = 'DELETE' or tg_op = 'UPDATE' and old.name <> new.name then
        perform rowbeat.fit_slots('queue/' || old.name, null);
    end if;
    if tg_op <> 'DELETE' then
        perform rowbeat.fit_slots('queue/' || new.name, new.concurrency,
            rowbeat.mark_running(array(
                select t.id from rowbeat.task t where new.concurrency is not null and t.queue = new.name and t.state = 'running')));
    end if;
    perform rowbeat.ring('task');
    return null;
end $$;
comment on function rowbeat.fit_queue_slots() is 'Keeps the slots of a queue''s limit as many as it allows.';

create or replace trigger fit_queue_slots after insert or update of name, concurrency or delete on rowbeat.queue
    for each row execute function rowbeat.fit_queue_slots();

create or replace trigger announce_feature after insert or update of enabled, condition or delete on rowbeat.feature
    for each statement execute function rowbeat.announce_definition();
