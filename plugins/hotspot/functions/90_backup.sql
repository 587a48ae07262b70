-- Backup and recovery, by rowbeat's own: its names for what it keeps are hotspot.sale, hotspot.voucher, hotspot.bundle, hotspot.staff; here they are
-- called without the schema.

-- The tables that are kept, in the order in which they come back: what is referenced first.
create or replace function hotspot.kept_tables() returns text[] language sql immutable as $$
    select '{staff,bundle,sale,voucher}'::text[]
$$;
comment on function hotspot.kept_tables() is 'The tables with a backup, in the order of recovery.';

-- The newest image of each key. Where it may write, it first reads what the log still holds, so that what is committed is seen.
create or replace function hotspot.newest_images() returns table (table_name text, key text, image jsonb, operation text, at timestamptz, by_whom text)
language plpgsql volatile as $$
begin
    if current_setting('transaction_read_only') = 'off' then
        perform rowbeat.catch_up();
    end if;
    return query
    select substr(s.name, 9), rowbeat.key_text(i.key), i.row, i.operation, i.at, i.by_whom
    from rowbeat.own_source s cross join lateral rowbeat.images_at(s.id, null) i where substr(s.name, 9) = any (hotspot.kept_tables());
end $$;
comment on function hotspot.newest_images() is 'The newest image of each row that there was.';

create or replace view hotspot.backup_latest as
select i.table_name, i.key, i.image, i.operation, i.at, i.by_whom from hotspot.newest_images() i where i.operation <> 'DELETE';
comment on view hotspot.backup_latest is 'The newest image of each row that was not deleted.';

create or replace view hotspot.backup_deleted as
select i.table_name, i.key, i.image, i.at as deleted_at, i.by_whom as deleted_by from hotspot.newest_images() i where i.operation = 'DELETE';
comment on view hotspot.backup_deleted is 'The delete section: the last image of each row that was deleted, when and by whom.';

-- A part of a document under other names of its tables: p_from taken off them, p_to put before them.
create or replace function hotspot.rename_tables(p_part jsonb, p_from text, p_to text) returns jsonb language sql immutable as $$
    select coalesce(jsonb_object_agg(p_to || case when starts_with(e.key, p_from) then substr(e.key, length(p_from) + 1) else e.key end, e.value), '{}')
    from jsonb_each(coalesce(p_part, '{}')) e
$$;
comment on function hotspot.rename_tables(jsonb, text, text) is 'Gives the tables of a document other names.';

-- The backup as one document, as of a time: tables, and the delete section.
create or replace function hotspot.backup_document(p_until timestamptz default null) returns jsonb language sql volatile as $$
    select rowbeat.backup_text(null, p_until, 'hotspot.')::jsonb
$$;
comment on function hotspot.backup_document(timestamptz) is 'The backup as one document.';

-- Whether it has the shape of a document: in tables, and in deleted if it is there, objects of rows, each with its primary key.
create or replace function hotspot.is_document(p_document jsonb) returns boolean language sql immutable as $$
    select coalesce(jsonb_typeof(p_document -> 'tables') = 'object' and jsonb_typeof(coalesce(p_document -> 'deleted', '{}')) = 'object', false) and not exists (
        select from (values (p_document -> 'tables'), (p_document -> 'deleted')) s (part)
        cross join lateral jsonb_each(case jsonb_typeof(s.part) when 'object' then s.part else '{}' end) t
        left join lateral jsonb_each(case jsonb_typeof(t.value) when 'object' then t.value else '{}' end) r on true
        where jsonb_typeof(t.value) <> 'object' or jsonb_typeof(r.value) <> 'object'
            or not r.value ? case when t.key in ('bundle', 'hotspot.bundle') then 'code' else 'id' end)
$$;
comment on function hotspot.is_document(jsonb) is 'Whether it has the shape of a document of a backup.';

-- Promises: rows that are missing are there again, with every field as it was; those that differ are left alone and counted, unless p_force. Deleted
--   ones come back only with p_include_deleted. Repeating it changes nothing. No SMS, no task; one log entry; the dashboard is as fresh as the rows.
-- From the images up to p_until, or from the document. Locks and more SQLSTATEs: as rowbeat.restore. SQLSTATEs: RP400 (no document), RP404 (no such table).
-- Called by: the command, the backup page.
create or replace function hotspot.recover(
    p_table text default null, p_until timestamptz default null, p_include_deleted boolean default false, p_force boolean default false,
    p_document jsonb default null, p_actor text default session_user
) returns table (table_name text, inserted bigint, updated bigint, skipped bigint, conflicts bigint) language plpgsql volatile as $$
declare
    v_table     text := regexp_replace(nullif(trim(p_table), ''), '^hotspot\.', '');
    v_tables    text[] := array(select t from unnest(hotspot.kept_tables()) t where v_table is null or t = v_table);
    v_document  jsonb;
    v_done      jsonb;
begin
    if v_tables = '{}' then
        perform hotspot.refuse('RP404', format('Table %s is not in the backup.', v_table));
    elsif p_document is not null and not hotspot.is_document(p_document) then
        perform hotspot.refuse('RP400', 'This is no document of a backup.');
    elsif p_document is not null and p_until is not null then
        perform hotspot.refuse('RP400', 'A document has one time only.');
    end if;
    v_document := case when p_document is not null then jsonb_build_object('tables', hotspot.rename_tables(p_document -> 'tables', 'hotspot.', 'hotspot.'),
        'deleted', hotspot.rename_tables(p_document -> 'deleted', 'hotspot.', 'hotspot.')) end;
    select jsonb_agg(to_jsonb(r)) into v_done
    from rowbeat.restore(array(select 'hotspot.' || t from unnest(v_tables) t), p_until, coalesce(p_include_deleted, false), coalesce(p_force, false), v_document, p_actor) r;
    perform hotspot.add_log(p_actor, 'recovery', coalesce(v_table, 'all'), null, coalesce(v_table, 'all tables'), (
        select string_agg(format('%s: %s inserted, %s updated, %s skipped, %s conflicts', t.name, d.inserted, d.updated, d.skipped, d.conflicts), '; ' order by t.n)
        from unnest(v_tables) with ordinality t (name, n) join jsonb_to_recordset(v_done) d (backup text, inserted bigint, updated bigint, skipped bigint, conflicts bigint)
            on d.backup = 'hotspot.' || t.name));
    perform hotspot.refresh_dashboard();
    return query
    select t.name, d.inserted, d.updated, d.skipped, d.conflicts
    from unnest(v_tables) with ordinality t (name, n) join jsonb_to_recordset(v_done) d (backup text, inserted bigint, updated bigint, skipped bigint, conflicts bigint)
        on d.backup = 'hotspot.' || t.name
    order by t.n;
end $$;
comment on function hotspot.recover(text, timestamptz, boolean, boolean, jsonb, text) is 'Brings rows back from the backup or from a document.';

create or replace function hotspot.recovered_lines(p_table text, p_until timestamptz, p_deleted boolean, p_force boolean, p_document jsonb, p_actor text) returns setof text
language sql volatile as $$
    select format('%s: %s inserted, %s updated, %s skipped, %s conflicts', r.table_name, r.inserted, r.updated, r.skipped, r.conflicts)
    from hotspot.recover(p_table, p_until, p_deleted, p_force, p_document, p_actor) r
$$;
comment on function hotspot.recovered_lines(text, timestamptz, boolean, boolean, jsonb, text) is 'A recovery, told in lines.';

create or replace function hotspot.run_recover(arguments jsonb) returns setof text language plpgsql volatile as $$
declare
    v_document  jsonb;
begin
    begin
        v_document := (arguments #>> '{from,content}')::jsonb;
    exception when invalid_text_representation then
        perform hotspot.refuse('RP400', 'This is no document of a backup.');
    end;
    return query select * from hotspot.recovered_lines(arguments ->> 'table', (arguments ->> 'until')::timestamptz,
        coalesce((arguments ->> 'deleted')::boolean, false), coalesce((arguments ->> 'force')::boolean, false), v_document, hotspot.actor());
end $$;
comment on function hotspot.run_recover(jsonb) is 'Brings rows back from the backup.';

create or replace function hotspot.run_backup_export(arguments jsonb) returns setof text language sql volatile as $$
    select hotspot.add_log(hotspot.actor(), 'export', 'all', null, 'backup.json', 'Document of the backup');
    select rowbeat.backup_text(null, (arguments ->> 'until')::timestamptz, 'hotspot.')
$$;
comment on function hotspot.run_backup_export(jsonb) is 'Prints the backup as one document.';

create or replace function hotspot.backup_page(p_message text) returns jsonb language sql volatile as $$
    select hotspot.page('staff.html', 'backup', jsonb_build_object('message', p_message, 'tables', (
        select jsonb_agg(jsonb_build_object('table_name', t.name, 'rows', c.rows, 'deleted', c.deleted) order by t.n)
        from unnest(hotspot.kept_tables()) with ordinality t (name, n)
        left join (select i.table_name, count(*) filter (where i.operation <> 'DELETE') as rows, count(*) filter (where i.operation = 'DELETE') as deleted
            from hotspot.newest_images() i group by 1) i on i.table_name = t.name
        cross join lateral (select coalesce(i.rows, 0) as rows, coalesce(i.deleted, 0) as deleted) c)))
$$;
comment on function hotspot.backup_page(text) is 'What is in the backup, perhaps with what was done.';

create or replace function hotspot.get_backup(request jsonb) returns jsonb language sql volatile as $$
    select hotspot.backup_page(null)
$$;
comment on function hotspot.get_backup(jsonb) is 'GET /hotspot/backup/';

-- It reads the log to its end, and so is no GET.
create or replace function hotspot.post_document(request jsonb) returns jsonb language plpgsql volatile as $$
begin
    perform hotspot.add_log(request ->> 'actor', 'export', 'all', null, 'backup.json', 'Document of the backup');
    return jsonb_build_object('status', 200, 'text', rowbeat.backup_text(null, (request #>> '{input,until}')::timestamptz, 'hotspot.'),
        'headers', '{"content-disposition": "attachment; filename=\"backup.json\""}'::jsonb);
end $$;
comment on function hotspot.post_document(jsonb) is 'POST /hotspot/backup/document';

create or replace function hotspot.post_recover(request jsonb) returns jsonb language sql volatile as $$
    select hotspot.backup_page((select string_agg(l, '; ') from hotspot.recovered_lines(i ->> 'table', (i ->> 'until')::timestamptz,
        coalesce((i ->> 'deleted')::boolean, false), coalesce((i ->> 'force')::boolean, false), null, request ->> 'actor') l))
    from (select request -> 'input' as i) r
$$;
comment on function hotspot.post_recover(jsonb) is 'POST /hotspot/backup/recover';
