-- The log of what staff did.

create or replace function hotspot.add_log(p_actor text, p_action text, p_type text, p_id text, p_repr text, p_message text) returns void
language sql volatile as $$
    insert into hotspot.log_entry (actor, object_type, object_id, object_repr, action_flag, change_message, action_time)
    values (coalesce(nullif(p_actor, ''), hotspot.actor()), p_type, p_id, coalesce(p_repr, ''), p_action, coalesce(p_message, ''), rowbeat.now_())
$$;
comment on function hotspot.add_log(text, text, text, text, text, text) is 'Adds an entry to the log.';

create or replace function hotspot.keep_log() returns trigger language plpgsql as $$
begin
    raise exception using errcode = 'RP409', message = 'Log entries are never changed.';
end $$;
comment on function hotspot.keep_log() is 'Refuses changes of the log.';
create or replace trigger keep_log before update or delete or truncate on hotspot.log_entry for each statement execute function hotspot.keep_log();

-- Promises: a row of bundle or staff that was written, and a sale or voucher that was deleted, is in the log: who, which, and which columns. No
--   values: they may be secret.
create or replace function hotspot.log_change() returns trigger language plpgsql as $$
declare
    v_row  jsonb := case when tg_op = 'DELETE' then to_jsonb(old) else to_jsonb(new) end;
begin
    if not hotspot.is_restoring() then
        perform hotspot.add_log(null, case tg_op when 'INSERT' then 'addition' when 'UPDATE' then 'change' else 'deletion' end, tg_table_name,
            coalesce(v_row ->> 'id', v_row ->> 'code'), coalesce(v_row ->> 'code', v_row ->> 'full_name', case when tg_table_name = 'staff' then v_row ->> 'username' end),
            case when tg_op = 'UPDATE' then 'Changed: ' || (select coalesce(string_agg(n.key, ', ' order by n.key), 'nothing') from jsonb_each(to_jsonb(new)) n
                where n.value <> to_jsonb(old) -> n.key and n.key <> 'updated_at') end);
    end if;
    return null;
end $$;
comment on function hotspot.log_change() is 'Writes what is done to rows by hand into the log.';
create or replace trigger log_change after insert or update or delete on hotspot.bundle for each row execute function hotspot.log_change();
create or replace trigger log_change after insert or update or delete on hotspot.staff for each row execute function hotspot.log_change();
create or replace trigger log_change after delete on hotspot.sale for each row execute function hotspot.log_change();
create or replace trigger log_change after delete on hotspot.voucher for each row execute function hotspot.log_change();
