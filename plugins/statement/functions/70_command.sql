-- Commands and the task of a rebuild.

create or replace function statement.rebuild_task(payload jsonb) returns jsonb language sql volatile as $$
    select jsonb_build_object('summaries', statement.rebuild_summaries(coalesce((payload ->> 'truncate')::boolean, false)))
$$;
comment on function statement.rebuild_task(jsonb) is 'The task statement.rebuild_summaries, with {"truncate"}.';

create or replace function statement.rebuild_command(arguments jsonb) returns setof text language plpgsql volatile as $$
declare
    v_truncate  boolean := coalesce((arguments ->> 'truncate')::boolean, false);
    v_made      bigint;
begin
    perform set_config('statement.progress', 'on', true);
    v_made := statement.rebuild_summaries(v_truncate);
    if v_truncate then
        return next 'Existing summary records removed.';
    end if;
    return next format('Creating %s summary documents...', v_made);
    return next 'Summary rebuild complete.';
end $$;
comment on function statement.rebuild_command(jsonb) is 'rowbeat app statement rebuild-summaries';

create or replace function statement.configure_command(arguments jsonb) returns setof text language plpgsql volatile as $$
declare
    v_made  bigint;
begin
    perform set_config('statement.progress', 'on', true);
    v_made := statement.configure(arguments ->> 'calendar', arguments ->> 'zone');
    return next format('Calendar %s, time zone %s.', arguments ->> 'calendar', arguments ->> 'zone');
    return next format('Creating %s summary documents...', v_made);
    return next 'Summary rebuild complete.';
end $$;
comment on function statement.configure_command(jsonb) is 'rowbeat app statement configure';
