-- The schedule table's own triggers.

-- Promises: an edit of what decides the next fire makes the schedule to be planned anew from now; other edits move
--   nothing. Its spec is one that the daemon reads, its zone one that the server knows. No row for a trigger that outlived its plugin.
-- SQLSTATEs: 22023 (bad spec, unknown zone).
create or replace function rowbeat.replan_schedule() returns trigger
language plpgsql set search_path = '' as $$
declare
    v_now timestamptz := rowbeat.now_();
begin
    if tg_op = 'INSERT' and rowbeat.outlived_plugin(new.definition) then
        return null;
    elsif tg_op = 'INSERT'
        or (new.spec, new.time_zone, new.start_at, new.end_at, new.enabled)
            is distinct from (old.spec, old.time_zone, old.start_at, old.end_at, old.enabled)
    then
        if tg_op = 'INSERT' or (new.spec, new.time_zone) is distinct from (old.spec, old.time_zone) then
            perform rowbeat.check_spec(new.spec), rowbeat.check_time_zone(new.time_zone);
        end if;
        if tg_op = 'INSERT' or (new.spec, new.start_at) is distinct from (old.spec, old.start_at) then
            new.anchor := coalesce(new.start_at, v_now);
        end if;
        -- A start in this very transaction means: now, that is, the first fire is due at once.
        new.plan_from := case when new.start_at >= now() then new.start_at else v_now end;
        new.planned_at := null;
        new.next_fire_at := null;
        new.last_error := null;
    end if;
    return new;
end $$;
comment on function rowbeat.replan_schedule() is 'Marks a schedule to be planned anew when its spec, zone, start, end or enabled changed.';

create or replace trigger replan_schedule before insert or update on rowbeat.schedule
    for each row execute function rowbeat.replan_schedule();

-- Promises: the daemons look at the schedules again after the commit.
create or replace function rowbeat.announce_schedule() returns trigger
language plpgsql set search_path = '' as $$
begin
    perform rowbeat.announce('schedule');
    return null;
end $$;
comment on function rowbeat.announce_schedule() is 'Tells the daemons that a schedule was written.';

create or replace trigger announce_schedule after insert on rowbeat.schedule
    for each statement execute function rowbeat.announce_schedule();
create or replace trigger announce_schedule_edit after update on rowbeat.schedule
    for each row when (new.planned_at is null and new.enabled) execute function rowbeat.announce_schedule();
