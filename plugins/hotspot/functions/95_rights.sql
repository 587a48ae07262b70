-- Operators see everything, keep bundles, staff and the pool, and call what is for people. Sales they only read.
do $$
begin
    if to_regrole('rowbeat_operator') is null then
        return;
    end if;
    grant select on all tables in schema hotspot to rowbeat_operator;
    grant insert, update, delete on hotspot.bundle, hotspot.staff, hotspot.voucher to rowbeat_operator;
    grant execute on function hotspot.refund(uuid, text, text, boolean), hotspot.load_vouchers(text, text, text, text), hotspot.claim_voucher(uuid),
        hotspot.data_allocation(numeric[], numeric), hotspot.match_profile(numeric, text[]), hotspot.sms_text(uuid),
        hotspot.record_payment(uuid, text, text, text), hotspot.start_checkout(text, text, text), hotspot.verify_otp(uuid, text),
        hotspot.newest_images(), hotspot.backup_document(timestamptz), hotspot.recover(text, timestamptz, boolean, boolean, jsonb, text) to rowbeat_operator;
end $$;
