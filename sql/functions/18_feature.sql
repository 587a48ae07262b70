-- Features: entitlements that definitions require. A condition is a function of the user's, so it is asked here, every few seconds
-- and after every edit, never within a claim or somebody's write.

-- Promises: each feature's condition has been asked; one that fails does not hold and says why. Returns how many changed.
-- Called by: every daemon's reader of definitions. Locks: feature rows whose answer changed. Safe in any number of copies.
create or replace function rowbeat.check_features() returns integer
language plpgsql volatile as $$
declare
    v_feature  record;
    v_holds    boolean;
    v_error    text;
    v_changed  integer := 0;
    v_first    boolean := false;
    v_path     text := current_setting('search_path');
begin
    for v_feature in select * from rowbeat.feature f where f.condition is not null loop
        begin
            execute format('select %s()', rowbeat.resolve_function(v_feature.condition, '()')::regproc) into v_holds;
            perform pg_catalog.set_config('search_path', v_path, false);
            v_error := null;
        exception when others then
            v_holds := false;
            v_error := sqlerrm;
        end;
        update rowbeat.feature f set condition_holds = coalesce(v_holds, false), checked_at = rowbeat.now_(), last_error = v_error
        where f.name = v_feature.name
            and (f.checked_at is null or (f.condition_holds, f.last_error) is distinct from (coalesce(v_holds, false), v_error));
        v_changed := v_changed + found::integer;
        v_first := v_first or v_feature.checked_at is null;
    end loop;
    if v_first then
        -- Schedules have waited for it.
        perform rowbeat.announce('schedule');
    end if;
    if v_changed > 0 then
        perform rowbeat.ring('task');
    end if;
    return v_changed;
end $$;
comment on function rowbeat.check_features() is 'Asks the conditions of all features; returns how many answers changed.';

-- The features of a list that do not hold, and why.
create or replace function rowbeat.missing_features(p_requires text[]) returns table (feature text, why text)
language sql stable set search_path = '' as $$
    select r.name, case
        when f.name is null then 'not known: insert it into rowbeat.feature'
        when not f.enabled then 'not enabled'
        when f.checked_at is null then 'not checked yet'
        else coalesce('refused: ' || f.last_error, 'refused by ' || f.condition) end
    from unnest(p_requires) r (name) left join rowbeat.feature f on f.name = r.name
    where f.name is null or not f.enabled or f.condition is not null and not f.condition_holds
$$;
comment on function rowbeat.missing_features(text[]) is 'Which of these features do not hold, and why.';
