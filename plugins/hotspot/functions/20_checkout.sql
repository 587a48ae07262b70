-- A customer's visit: what he wants, the code that shows that the phone is his, and the sale that comes of it.

-- The code with its salt, hashed. It is a text: leading zeros count.
create or replace function hotspot.hash_otp(p_salt text, p_otp text) returns text language sql immutable as $$
    select encode(sha256(convert_to(p_salt || '/' || p_otp, 'UTF8')), 'hex')
$$;
comment on function hotspot.hash_otp(text, text) is 'The hash of a one-time code.';

-- SQLSTATEs: RP400 (no ten digits, or another network's).
create or replace function hotspot.check_phone(p_phone_number text) returns void language plpgsql volatile as $$
begin
    if coalesce(p_phone_number, '') !~ '^[0-9]{10}$' then
        perform hotspot.refuse('RP400', format('%s is not 10 digits', p_phone_number));
    elsif left(p_phone_number, 3) not in ('024', '025', '053', '054', '055', '059') then
        perform hotspot.refuse('RP400', format('%s is not a valid MTN phone number', p_phone_number));
    end if;
end $$;
comment on function hotspot.check_phone(text) is 'Refuses what is no number of the network.';

-- Promises: a visit is stored, and an SMS with its code is on its way. Returns its token. The code is in the SMS's row until that is sent,
--   and nowhere else. SQLSTATEs: RP400. Called by: the form.
create or replace function hotspot.start_checkout(p_full_name text, p_phone_number text, p_bundle_code text) returns uuid language plpgsql volatile as $$
declare
    v_name    text := trim(p_full_name);
    v_bundle  text;
    v_salt    text := encode(uuid_send(gen_random_uuid()), 'hex');
    v_otp     text := lpad((('x' || left(replace(gen_random_uuid()::text, '-', ''), 8))::bit(32)::bigint % 1000000)::text, 6, '0');
    v_token   uuid;
begin
    if coalesce(v_name, '') = '' then
        perform hotspot.refuse('RP400', 'Full name is required.');
    elsif length(v_name) > 40 then
        perform hotspot.refuse('RP400', 'A full name has at most 40 characters.');
    end if;
    perform hotspot.check_phone(p_phone_number);
    v_bundle := hotspot.find_bundle(p_bundle_code);
    if v_bundle is null then
        perform hotspot.refuse('RP400', 'Select a valid choice.');
    end if;
    insert into hotspot.checkout (full_name, phone_number, bundle_code, otp_salt, otp_hash, otp_expires_at)
    values (v_name, p_phone_number, v_bundle, v_salt, hotspot.hash_otp(v_salt, v_otp), rowbeat.now_() + interval '10 minutes')
    returning token into v_token;
    perform hotspot.add_sms('otp', p_phone_number, 'Here''s your onetime otp : ' || v_otp, p_checkout_token => v_token);
    return v_token;
end $$;
comment on function hotspot.start_checkout(text, text, text) is 'Begins a visit and sends its one-time code.';

-- Whether a code can still be given.
create or replace function hotspot.is_open(p_token uuid) returns boolean language sql stable as $$
    select exists (select from hotspot.checkout c
        where c.token = p_token and c.verified_at is null and c.tries < 5 and c.otp_expires_at > rowbeat.now_())
$$;
comment on function hotspot.is_open(uuid) is 'Whether a visit waits for its code.';

-- Promises: with the right code, in time and within five tries, there is one sale, and its payment is being asked for; the sale's id, also
--   when the same comes again. Null: wrong, and that is counted, or too late. Locks: the visit.
create or replace function hotspot.verify_otp(p_token uuid, p_otp text) returns uuid language plpgsql volatile as $$
declare
    v_checkout  hotspot.checkout;
    v_sale      uuid;
begin
    select * into v_checkout from hotspot.checkout c where c.token = p_token for update;
    if not found or v_checkout.verified_at is null and not hotspot.is_open(p_token) then
        return null;
    elsif hotspot.hash_otp(v_checkout.otp_salt, p_otp) is distinct from v_checkout.otp_hash then
        update hotspot.checkout c set tries = c.tries + 1 where c.token = p_token and c.verified_at is null;
        return null;
    elsif v_checkout.verified_at is not null then
        return (select s.id from hotspot.sale s where s.checkout_token = p_token);
    end if;
    update hotspot.checkout c set verified_at = rowbeat.now_() where c.token = p_token;
    update hotspot.sms s set text = null where s.checkout_token = p_token;
    insert into hotspot.sale (full_name, phone_number, bundle_code, checkout_token)
    values (v_checkout.full_name, v_checkout.phone_number, v_checkout.bundle_code, p_token) returning id into v_sale;
    perform rowbeat.enqueue('hotspot.request_payment', jsonb_build_object('sale', v_sale), p_unique_key => v_sale::text);
    return v_sale;
end $$;
comment on function hotspot.verify_otp(uuid, text) is 'Checks a one-time code; the sale that comes of it, or null.';

-- What a customer sees of the sale of his own visit: status and details, and the credentials once they work. Null: there is none.
create or replace function hotspot.status_of(p_token uuid) returns jsonb language sql stable as $$
    select jsonb_build_object('status', s.status, 'details', case
            when s.status in ('requested', 'pending') then E'Processing Payment. \n Please Wait'
            when s.status in ('paid', 'delivered') then 'Payment is Successful'
            when s.status = 'refunded' then 'Payment is Refunded'
            else E'Payment is Unsuccessful. \nPlease Try Again' end)
        || case when s.status = 'delivered' then jsonb_build_object('username', s.hotspot_username, 'password', s.hotspot_password) else '{}' end
    from hotspot.sale s where s.checkout_token = p_token
$$;
comment on function hotspot.status_of(uuid) is 'What a customer may know of his sale.';

-- Promises: visits of more than a day are gone, and codes that are over stand nowhere. Called by: the task hotspot.close_checkouts, daily.
create or replace function hotspot.close_checkouts(payload jsonb) returns jsonb language plpgsql volatile as $$
declare
    v_closed  bigint;
begin
    delete from hotspot.checkout c where c.created_at < rowbeat.now_() - interval '1 day';
    get diagnostics v_closed = row_count;
    update hotspot.sms s set text = null
    where s.kind = 'otp' and s.text is not null and not exists (select from hotspot.checkout c where c.token = s.checkout_token and hotspot.is_open(c.token));
    return jsonb_build_object('closed', v_closed);
end $$;
comment on function hotspot.close_checkouts(jsonb) is 'Forgets visits of more than a day.';
