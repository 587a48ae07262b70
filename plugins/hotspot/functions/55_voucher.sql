-- Loading the pool.

-- The cells of a line of CSV.
create or replace function hotspot.cells(p_line text, p_separator text) returns text[] language sql immutable as $$
    select case when strpos(p_line, '"') = 0 then string_to_array(p_line, p_separator)
        else array(select case when m[1] like '"%' then replace(substr(m[1], 2, length(m[1]) - 2), '""', '"') else m[1] end
            from regexp_matches(p_separator || p_line, format('%s("(?:[^"]|"")*"|[^"%1$s]*)', p_separator), 'g') m) end
$$;
comment on function hotspot.cells(text, text) is 'The cells of a line of CSV.';

-- The rows of a list with the columns Login, Password and Uptime Limit, in any order, by commas or semicolons. SQLSTATEs: RP400.
create or replace function hotspot.read_list(p_content text) returns table (line bigint, login text, secret text, uptime text) language plpgsql immutable as $$
declare
    v_lines      text[] := string_to_array(regexp_replace(ltrim(p_content, chr(65279)), E'\r\n?', E'\n', 'g'), E'\n');
    v_separator  text := case when strpos(v_lines[1], ';') > 0 and strpos(v_lines[1], ',') = 0 then ';' else ',' end;
    v_head       text[] := array(select lower(trim(c)) from unnest(hotspot.cells(v_lines[1], v_separator)) c);
    v_login      integer := array_position(v_head, 'login');
    v_secret     integer := array_position(v_head, 'password');
    v_uptime     integer := array_position(v_head, 'uptime limit');
begin
    if v_login is null or v_secret is null then
        perform hotspot.refuse('RP400', 'The columns Login, Password and Uptime Limit are needed.');
    end if;
    return query select l.n + 1, coalesce(trim(r.c[v_login]), ''), coalesce(trim(r.c[v_secret]), ''), nullif(trim(r.c[v_uptime]), '')
    from unnest(v_lines[2:]) with ordinality l (line, n) cross join lateral (select hotspot.cells(l.line, v_separator) as c) r
    where translate(l.line, v_separator || E'" \t', '') <> '';
end $$;
comment on function hotspot.read_list(text) is 'The rows of a list of vouchers.';

-- Promises: the vouchers of a list are in the pool; what exists is skipped, also within the list. One log entry. Returns the sentence about it.
-- SQLSTATEs: RP400 (no such list), RP404 (no such bundle). Safe to repeat. Called by: the command and the upload.
create or replace function hotspot.load_vouchers(p_content text, p_bundle_code text, p_name text, p_actor text) returns text language plpgsql volatile as $$
declare
    v_bad     bigint;
    v_rows    bigint;
    v_loaded  bigint;
    v_said    text;
begin
    if p_bundle_code is not null and not exists (select from hotspot.bundle b where b.code = p_bundle_code) then
        perform hotspot.refuse('RP404', format('Bundle %s does not exist.', p_bundle_code));
    end if;
    select count(*), min(l.line) filter (where length(l.login) not between 1 and 15 or length(l.secret) not between 1 and 15 or length(l.uptime) > 150)
    into v_rows, v_bad from hotspot.read_list(p_content) l;
    if v_bad is not null then
        perform hotspot.refuse('RP400', format('Line %s: Login and Password have 1 to 15 characters, Uptime Limit at most 150.', v_bad));
    end if;
    insert into hotspot.voucher (username, password, uptime_limit, bundle_code)
    select l.login, l.secret, l.uptime, p_bundle_code from hotspot.read_list(p_content) l order by l.line
    on conflict do nothing;
    get diagnostics v_loaded = row_count;
    v_said := format('%s vouchers loaded, %s skipped.', v_loaded, v_rows - v_loaded);
    perform hotspot.add_log(p_actor, 'import', 'voucher', null, p_name, v_said);
    return v_said;
end $$;
comment on function hotspot.load_vouchers(text, text, text, text) is 'Loads vouchers into the pool.';
