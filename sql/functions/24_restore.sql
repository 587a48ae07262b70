-- Restoring rows from images or from a document.
--
-- Who may: whoever may write the tables; these functions have the rights of their caller. Nothing is started by it: watches leave alone
-- what has an origin (those that ask for `restore` hear of it), and the tables' own triggers rest where the caller owns the table.

-- Promises: the tables in an order in which what is referenced comes first; a circle begins where a constraint can be deferred.
create or replace function rowbeat.restore_order(p_tables regclass[]) returns regclass[]
language plpgsql stable set search_path = '' as $$
declare
    v_left    regclass[] := array(select distinct t from unnest(p_tables) t);
    v_free    regclass[];
    v_placed  regclass[] := '{}';
begin
    while v_left <> '{}' loop
        v_free := array(
            select l from unnest(v_left) l
            where not exists (select from pg_catalog.pg_constraint c
                where c.contype = 'f' and c.conrelid = l and c.confrelid = any (v_left) and c.confrelid <> l)
            order by l::text);
        if v_free = '{}' then
            v_free := array(
                select l from unnest(v_left) l
                where not exists (select from pg_catalog.pg_constraint c
                    where c.contype = 'f' and not c.condeferrable and c.conrelid = l and c.confrelid = any (v_left) and c.confrelid <> l)
                order by l::text limit 1);
        end if;
        if v_free = '{}' then
            v_free := array(select l from unnest(v_left) l order by l::text);
        end if;
        v_placed := v_placed || v_free;
        v_left := array(select l from unnest(v_left) l where l <> all (v_free));
    end loop;
    return v_placed;
end $$;
comment on function rowbeat.restore_order(regclass[]) is 'Tables, parents before children.';

-- Which tables a restore is about: the backups named (null: all whose table is there, or all that the document has), each with its table, in order. A
--   document may have tables that no backup is known of: those are looked up by name.
-- SQLSTATEs: 42P01 (no such backup, or its table is gone).
create or replace function rowbeat.restore_tables(p_backups text[], p_document jsonb default null) returns table (backup text, source integer, table_name regclass)
language plpgsql stable set search_path = '' as $$
declare
    v_names   text[] := coalesce(p_backups, case
        when p_document is null then array(select b.name from rowbeat.own_backup b where rowbeat.backup_table(b.name) is not null)
        else array(select jsonb_object_keys(coalesce(p_document -> 'tables', '{}')) union select jsonb_object_keys(coalesce(p_document -> 'deleted', '{}'))) end);
    v_tables  regclass[] := '{}';
    v_name    text;
    v_table   regclass;
begin
    foreach v_name in array v_names loop
        v_table := coalesce(rowbeat.backup_table(v_name),
            case when p_document is not null then to_regclass(v_name) end);
        if v_table is null then
            raise exception using errcode = 'undefined_table', message = case
                when exists (select from rowbeat.own_source s where s.name = v_name) then format('the table of backup "%s" is gone', v_name)
                else format('there is no backup "%s"', v_name) end,
                hint = case when exists (select from rowbeat.own_source s where s.name = v_name)
                    then 'Create it as it was, without rows, and restore again.' else 'See rowbeat.backups for those that are.' end;
        end if;
        v_tables := v_tables || v_table;
    end loop;
    return query
    select v_names[array_position(v_tables, o.t)], (select s.id from rowbeat.own_source s where s.name = v_names[array_position(v_tables, o.t)]), o.t
    from unnest(rowbeat.restore_order(v_tables)) with ordinality o (t, n) order by o.n;
end $$;
comment on function rowbeat.restore_tables(text[], jsonb) is 'The tables of a restore, parents before children.';

-- The rows that a restore would bring back. It becomes part of the statement that calls it, as rowbeat.images_at does.
create or replace function rowbeat.restorable(p_backup text, p_source integer, p_until timestamptz, p_include_deleted boolean, p_document jsonb)
returns setof jsonb
language sql stable rows 1000000 as $$
    select i.row from rowbeat.images_at(p_source, p_until) i where p_document is null and (p_include_deleted or i.operation <> 'DELETE')
    union all
    select r.value from jsonb_each(p_document -> 'tables' -> p_backup) r where p_document is not null
    union all
    select r.value from jsonb_each(p_document -> 'deleted' -> p_backup) r where p_document is not null and p_include_deleted
$$;
comment on function rowbeat.restorable(text, integer, timestamptz, boolean, jsonb) is 'The rows that a restore would bring back.';

-- Whether JSON text holds all values of these columns (null: all) exactly, and an ordinary cast of it is what jsonb_populate_record makes of it.
create or replace function rowbeat.plain_columns(p_table regclass, p_columns text[] default null) returns boolean
language sql stable set search_path = '' as $$
    select bool_and(a.atttypid = any ('{bool,int2,int4,int8,text,uuid,date,timestamp,timestamptz,bytea}'::regtype[])
        or a.atttypid = any ('{numeric,varchar,bpchar,name}'::regtype[]) and p_columns is null)
    from pg_catalog.pg_attribute a
    where a.attrelid = p_table and a.attnum > 0 and not a.attisdropped and (p_columns is null or a.attname = any (p_columns))
$$;
comment on function rowbeat.plain_columns(regclass, text[]) is 'Whether these columns need no conversion of whole rows to be compared.';

-- How the statements of restores and comparisons find the rows l of a table by images i: the key's values k1, k2 … of an image; the join that has to
--   precede it, when only a conversion of the whole row gives them; the condition.
create or replace function rowbeat.typed_keys(p_table regclass, p_keys text[], out picked text, out conversion text, out matches text)
language sql stable set search_path = '' as $$
    select string_agg(case when p.plain then format('(i.image ->> %L)::pg_catalog.%I as k%s', k.name, t.typname, k.n)
            else format('"rowbeat row".%I as k%s', k.name, k.n) end, ', ' order by k.n),
        case when p.plain then '' else format(' cross join lateral jsonb_populate_record(null::%s, i.image) "rowbeat row"', rowbeat.table_name(p_table)) end,
        string_agg(format('l.%I = i.k%s', k.name, k.n), ' and ' order by k.n)
    from (select rowbeat.plain_columns(p_table, p_keys) as plain) p
    cross join unnest(p_keys) with ordinality k (name, n)
    join pg_catalog.pg_attribute a on a.attrelid = p_table and a.attname = k.name
    join pg_catalog.pg_type t on t.oid = a.atttypid
    group by p.plain
$$;
comment on function rowbeat.typed_keys(regclass, text[]) is 'Parts of statements that join images with the rows of their table.';

-- Promises: rows that are missing are there with every field as it was; those that are there and equal are left alone; those that differ are
--   counted as conflicts, unless p_force: then they are as they were, but for those that collide with rows that came later. Rows that came later stay. Repeating it changes nothing.
--   Fields are found by name: unmapped are those that the table has no column for; a column that an image knows nothing of gets its default,
--   or keeps its value.
-- Called by: restore. How: one statement for those that have all columns of the table, as a rule all; it tells of which further sets of columns
--   there are images, and each gets a statement.
-- SQLSTATEs: what the table says of a row.
create or replace function rowbeat.restore_table(
    p_table regclass, p_backup text, p_source integer, p_until timestamptz, p_include_deleted boolean, p_force boolean, p_document jsonb,
    out inserted bigint, out updated bigint, out skipped bigint, out conflicts bigint, out conflict_keys jsonb, out unmapped text[]
)
language plpgsql volatile set search_path = '' as $$
declare
    v_keys     text[] := rowbeat.key_columns(p_table);
    v_columns  text[];
    v_fixed    text[];
    v_known    text[] := array(select a.attname::text from pg_catalog.pg_attribute a where a.attrelid = p_table and a.attnum > 0 and not a.attisdropped)
        || case when p_document is not null then '{deleted_at,deleted_by}'::text[] end;
    v_sets     text[];
    v_next     integer := 0;
    v_of       text[];
    v_rest     text[];
    v_piece    record;
begin
    if v_keys = '{}' then
        raise exception '% has no primary key', p_table using errcode = 'RB006',
            hint = 'Rows are told apart by it: give it the one that it had.';
    end if;
    select array_agg(a.attname::text order by a.attnum), coalesce(array_agg(a.attname::text) filter (where a.attidentity = 'a'), '{}')
    into v_columns, v_fixed
    from pg_catalog.pg_attribute a where a.attrelid = p_table and a.attnum > 0 and not a.attisdropped and a.attgenerated = '';
    inserted := 0; updated := 0; skipped := 0; conflicts := 0; conflict_keys := '[]'; unmapped := '{}';
    v_sets := array[v_columns::text];
    while v_next < cardinality(v_sets) loop
        v_next := v_next + 1;
        v_of := v_sets[v_next]::text[];
        if not v_of @> v_keys then
            raise exception 'rows of backup "%" have no %', p_backup, (select k from unnest(v_keys) k where k <> all (v_of) limit 1)
                using errcode = 'undefined_column', hint = 'The primary key of the table has other columns than it had.';
        end if;
        v_rest := array(select c from unnest(v_columns) c where c <> all (v_of));
        begin
            execute rowbeat.restore_statement(p_table, v_keys, v_of, v_fixed)
            into v_piece using p_backup, p_source, p_until, p_include_deleted, p_document, v_of, v_rest, p_force, v_keys, v_columns, v_known, v_next = 1;
        exception when unique_violation then
            -- What one row is to have another one has: it may let go of it, so these go one by one.
            execute rowbeat.restore_statement(p_table, v_keys, v_of, v_fixed)
            into v_piece using p_backup, p_source, p_until, p_include_deleted, p_document, v_of, v_rest, false, v_keys, v_columns, v_known, v_next = 1;
            select f.updated, v_piece.conflicts - f.updated, f.refused into v_piece.updated, v_piece.conflicts, v_piece.conflict_keys
            from rowbeat.restore_singly(p_table, p_backup, p_source, p_until, p_include_deleted, p_document, v_keys, v_of, v_rest, v_fixed) f;
        end;
        inserted := inserted + v_piece.inserted;
        updated := updated + v_piece.updated;
        skipped := skipped + v_piece.skipped;
        conflicts := conflicts + v_piece.conflicts;
        conflict_keys := conflict_keys || v_piece.conflict_keys;
        v_sets := v_sets || v_piece.sets;
        unmapped := unmapped || v_piece.unmapped;
    end loop;
end $$;
comment on function rowbeat.restore_table(regclass, text, integer, timestamptz, boolean, boolean, jsonb) is 'Restores one table; returns what became of the rows.';

-- Promises: rows that differ from their images are as those say, one after the other and again while that helps: what is left (refused, at most 100 of
--   their keys) collides with rows that keep what it is to have. Called by: restore_table, when all at once collide.
create or replace function rowbeat.restore_singly(
    p_table regclass, p_backup text, p_source integer, p_until timestamptz, p_include_deleted boolean, p_document jsonb,
    p_keys text[], p_of text[], p_rest text[], p_fixed text[], out updated bigint, out refused jsonb
)
language plpgsql volatile set search_path = '' as $$
declare
    v_name     text := rowbeat.table_name(p_table);
    v_matches  text := (select string_agg(format('l.%1$I = r.%1$I', k), ' and ') from unnest(p_keys) k);
    v_update   text := format('update %1$s l set %2$s from jsonb_populate_record(null::%1$s, $1) r where %3$s', v_name,
        (select string_agg(format('%1$I = r.%1$I', c), ', ') from unnest(p_of) c where c <> all (p_keys || p_fixed)), v_matches);
    v_differ   text := format('select coalesce(array_agg(i.image), ''{}'') from rowbeat.restorable($1, $2, $3, $4, $5) i (image) cross join lateral jsonb_populate_record(null::%1$s, i.image) r
        join %1$s l on %2$s where i.image ?& $6 and not i.image ?| $7 and to_jsonb(jsonb_populate_record(l.*, i.image)) <> to_jsonb(l.*)', v_name, v_matches);
    v_left     jsonb[];
    v_failed   jsonb[];
    v_image    jsonb;
begin
    updated := 0;
    execute v_differ into v_left using p_backup, p_source, p_until, p_include_deleted, p_document, p_of, p_rest;
    loop
        v_failed := '{}';
        foreach v_image in array v_left loop
            begin
                execute v_update using v_image;
                updated := updated + 1;
            exception when unique_violation then
                v_failed := array_append(v_failed, v_image);
            end;
        end loop;
        exit when cardinality(v_failed) in (0, cardinality(v_left));
        v_left := v_failed;
    end loop;
    refused := (select coalesce(jsonb_agg(rowbeat.pick_key(f, p_keys)), '[]') from unnest(v_failed[:100]) f);
end $$;
comment on function rowbeat.restore_singly(regclass, text, integer, timestamptz, boolean, jsonb, text[], text[], text[], text[]) is 'Overwrites rows one by one.';

-- The statement that restores those rows of a table whose images have just these columns. With $12 it also says which other sets of columns images
--   have, and which fields have no column.
-- How: a row that is as its image says is recognized without a conversion of the image, and keys are made only of what has to be told.
create or replace function rowbeat.restore_statement(p_table regclass, p_keys text[], p_of text[], p_fixed text[]) returns text
language sql stable set search_path = '' as $$
    select format(
        'with compared as materialized (
             select i.*, l.%1$I is null as missing, case when l.%1$I is null then false when i.image = to_jsonb(l.*)%8$s then true
                 else to_jsonb(jsonb_populate_record(l.*, i.image)) = to_jsonb(l.*) end as same
             from (select i.image, i.fits, %9$s
                 from (select r.image%8$s as image, r.image ?& $6 and not r.image ?| $7 as fits from rowbeat.restorable($1, $2, $3, $4, $5) r (image)) i%10$s) i
             left join %2$s l on %11$s
         ), inserted as (
             insert into %2$s as l (%4$s) overriding system value
             select %5$s from compared c cross join lateral jsonb_populate_record(null::%2$s, c.image) r where c.fits and c.missing
             on conflict do nothing returning %12$s
         )%6$s, refused as (
             select rowbeat.pick_key(c.image, $9) as key from compared c where c.fits and not c.missing and not c.same and not $8
             union all
             select jsonb_build_object(%13$s) from (
                 select %14$s from compared c where c.fits and c.missing except all select i.* from inserted i) k
             where (select count(*) from inserted) < (select count(*) from compared c where c.fits and c.missing)
         )
         select (select count(*) from inserted) as inserted, %7$s as updated,
             (select count(*) from compared c where c.fits and not c.missing and c.same) as skipped,
             (select count(*) from refused) as conflicts, (select coalesce(jsonb_agg(f.key), ''[]'') from (select r.key from refused r limit 100) f) as conflict_keys,
             array(select distinct array(select u from unnest($10) u where c.image ? u)::text from compared c where $12 and not c.fits) as sets,
             array(select distinct u from compared c cross join lateral jsonb_object_keys(c.image - $11) u where $12 and c.image - $11 <> ''{}'') as unmapped',
        p_keys[1], rowbeat.table_name(p_table), k.matches, c.names, c.values,
        case when s.assigned is not null then format(', updated as (
             update %1$s as l set %2$s from compared c cross join lateral jsonb_populate_record(null::%1$s, c.image) r
             where $8 and c.fits and not c.missing and not c.same and %3$s returning 1
         )', rowbeat.table_name(p_table), s.assigned, k.matches) else '' end,
        case when s.assigned is not null then '(select count(*) from updated)' else '0::bigint' end,
        (select format(' - %L::text[]', array_agg(a.attname::text)) from pg_catalog.pg_attribute a
            where a.attrelid = p_table and a.attnum > 0 and a.attgenerated <> '' and not a.attisdropped having count(*) > 0),
        t.picked, t.conversion, t.matches, k.returned, k.built, k.numbered)
    from (select string_agg(format('l.%1$I = r.%1$I', x), ' and ') as matches, string_agg(format('l.%I as k%s', x, n), ', ') as returned,
            string_agg(format('%L, k.k%s', x, n), ', ') as built, string_agg(format('c.k%s', n), ', ') as numbered
        from unnest(p_keys) with ordinality u (x, n)) k
    cross join (select string_agg(quote_ident(x), ', ') as names, string_agg('r.' || quote_ident(x), ', ') as values from unnest(p_of) x) c
    cross join (select string_agg(format('%1$I = r.%1$I', x), ', ') as assigned from unnest(p_of) x where x <> all (p_keys || p_fixed)) s
    cross join rowbeat.typed_keys(p_table, p_keys) t
$$;
comment on function rowbeat.restore_statement(regclass, text[], text[], text[]) is 'The statement that restores rows with these columns.';

-- The statements that let a table's own triggers rest, or (p_again) let them work as they did. Capture goes on.
create or replace function rowbeat.resting_triggers(p_table regclass) returns table (rest text, wake text)
language sql stable set search_path = '' as $$
    select format('alter table %s disable trigger %I', t.tgrelid::regclass, t.tgname),
        format('alter table %s enable %strigger %I', t.tgrelid::regclass, case t.tgenabled when 'A' then 'always ' when 'R' then 'replica ' else '' end, t.tgname)
    from pg_catalog.pg_trigger t
    join pg_catalog.pg_class c on c.oid = t.tgrelid
    join pg_catalog.pg_proc p on p.oid = t.tgfoid
    where (t.tgrelid = p_table or t.tgrelid in (select r.relid from pg_partition_tree(p_table) r))
        and not t.tgisinternal and t.tgparentid = 0 and t.tgenabled <> 'D' and pg_has_role(current_user, c.relowner, 'USAGE')
        and not (p.pronamespace = 'rowbeat'::regnamespace and p.proname in ('capture_statement', 'capture_row', 'capture_truncate'))
$$;
comment on function rowbeat.resting_triggers(regclass) is 'Statements that disable a table''s own triggers, and those that enable them again.';

-- Promises: sequences of the table's columns go on behind what is in it, unless the setting rowbeat.keep_sequences is on: sequences are not rolled
--   back. Called by: restore, after it inserted.
create or replace function rowbeat.advance_sequences(p_table regclass) returns void
language plpgsql volatile set search_path = '' as $$
declare
    v_column  record;
    v_most    bigint;
begin
    for v_column in
        select a.attname, pg_get_serial_sequence(rowbeat.table_name(p_table), a.attname)::regclass as sequence
        from pg_catalog.pg_attribute a where a.attrelid = p_table and a.attnum > 0 and not a.attisdropped and a.atttypid in ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)
    loop
        continue when v_column.sequence is null or current_setting('rowbeat.keep_sequences', true) = 'on';
        execute format('select max(t.%I) from %s t', v_column.attname, rowbeat.table_name(p_table)) into v_most;
        if v_most > coalesce(pg_sequence_last_value(v_column.sequence), 0)
            and (select s.seqincrement > 0 from pg_catalog.pg_sequence s where s.seqrelid = v_column.sequence) then
            perform setval(v_column.sequence, v_most);
        end if;
    end loop;
end $$;
comment on function rowbeat.advance_sequences(regclass) is 'Lets the sequences of a table go on behind what is in it.';

-- Promises: the tables of these backups (null: all; of those whose table is gone there is a warning) have their rows of p_until (null: now) again, parents before children, all or nothing;
--   see restore_table for which rows. Deleted rows only with p_include_deleted. p_document: from this document (see backup_document) instead of
--   the images. p_dry_run: nothing is done, the answer is the same. The change log says p_actor. No task is started, and no image written but
--   of rows that get another content than their newest image has.
-- Called by: operators, plugins. Locks: the backup's consumer; ShareRowExclusive on each table that the caller owns (writers wait, readers do not),
--   in the order of restoring. Safe to repeat: yes. SQLSTATEs: 42501 (the session's origin would not be believed), 42P01, 22023, and what
--   the tables say of a row: then nothing was restored.
create or replace function rowbeat.restore(
    p_backups text[] default null, p_until timestamptz default null, p_include_deleted boolean default false, p_force boolean default false,
    p_document jsonb default null, p_actor text default null, p_dry_run boolean default false
) returns table (backup text, inserted bigint, updated bigint, skipped bigint, conflicts bigint, conflict_keys jsonb, unmapped text[])
language plpgsql volatile set search_path = '' set timezone = 'UTC' set extra_float_digits = 1 set intervalstyle = 'postgres'
    set bytea_output = 'hex' set datestyle = 'ISO' set jit = off as $$
declare
    -- Not a setting of the function: those of one's own are for superusers to write there.
    v_origin  text := coalesce(current_setting('rowbeat.origin', true), '');
    v_actor   text := coalesce(current_setting('rowbeat.actor', true), '');
    v_table   record;
    v_gone    text;
    v_owned   boolean;
    v_wake    text[] := '{}';
    v_rest    text[];
    v_done    jsonb := '[]';
begin
    if p_document is not null and p_until is not null then
        raise exception 'a document has one time only' using errcode = '22023', hint = 'Leave p_until out.';
    end if;
    for v_gone in select b.name from rowbeat.own_backup b where p_backups is null and p_document is null and rowbeat.backup_table(b.name) is null loop
        raise warning 'the table of backup "%" is gone: nothing of it is restored', v_gone
            using hint = 'Create it as it was, without rows, and restore again; or end the backup: rowbeat backup disable.';
    end loop;
    perform set_config('rowbeat.origin', 'restore', true), set_config('rowbeat.actor', coalesce(p_actor, session_user), true);
    if not rowbeat.believes_origin() then
        raise exception '% may not restore: what it writes would start tasks', session_user using errcode = 'insufficient_privilege',
            hint = 'Log in as a member of the role that owns schema rowbeat.';
    end if;
    begin
        -- First the consumer, by which everybody begins who locks tables for the backup; then what was written before the tables were locked.
        perform rowbeat.catch_up();
        for v_table in select t.* from rowbeat.restore_tables(p_backups, p_document) t loop
            select pg_has_role(current_user, c.relowner, 'USAGE') into v_owned from pg_catalog.pg_class c where c.oid = v_table.table_name;
            if v_owned then
                execute format('lock table %s in share row exclusive mode', rowbeat.table_name(v_table.table_name));
            end if;
            select coalesce(array_agg(t.rest), '{}'), v_wake || coalesce(array_agg(t.wake), '{}') into v_rest, v_wake
            from rowbeat.resting_triggers(v_table.table_name) t;
            perform rowbeat.execute_all(v_rest);
        end loop;
        perform rowbeat.catch_up();
        set constraints all deferred;
        for v_table in select t.* from rowbeat.restore_tables(p_backups, p_document) t loop
            v_done := v_done || (
                select jsonb_build_object('backup', v_table.backup) || to_jsonb(r)
                from rowbeat.restore_table(v_table.table_name, v_table.backup, v_table.source, p_until, p_include_deleted, p_force, p_document) r);
        end loop;
        set constraints all immediate;
        perform rowbeat.execute_all(v_wake);
        if p_dry_run then
            raise exception using errcode = 'DRY00';
        end if;
        perform rowbeat.advance_sequences(t.table_name) from rowbeat.restore_tables(p_backups, p_document) t;
    exception when sqlstate 'DRY00' then
        -- All of it is undone; what was counted stays.
        null;
    end;
    perform set_config('rowbeat.origin', v_origin, true), set_config('rowbeat.actor', v_actor, true);
    return query
    select d.* from jsonb_to_recordset(v_done) d (backup text, inserted bigint, updated bigint, skipped bigint, conflicts bigint, conflict_keys jsonb, unmapped text[]);
end $$;
comment on function rowbeat.restore(text[], timestamptz, boolean, boolean, jsonb, text, boolean) is 'Restores tables from their backup; returns what became of the rows.';

create or replace function rowbeat.execute_all(p_statements text[]) returns void
language plpgsql volatile set search_path = '' as $$
declare
    v_statement  text;
begin
    foreach v_statement in array p_statements loop
        execute v_statement;
    end loop;
end $$;
comment on function rowbeat.execute_all(text[]) is 'Runs statements that the catalogue gave.';

-- Whether capture believes the session's origin. Runs as its owner, as capture does.
create or replace function rowbeat.believes_origin() returns boolean
language plpgsql stable security definer set search_path = '' as $$
begin
    return rowbeat.capture_origin() is not null;
end $$;
comment on function rowbeat.believes_origin() is 'Whether capture believes the origin that the session sets.';
