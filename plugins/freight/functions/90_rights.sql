-- Operators see and change freight's rows and call what is for people; the trails of what happened they only read.
do $$
begin
    if to_regrole('rowbeat_operator') is null then
        return;
    end if;
    grant select, insert, update, delete on all tables in schema freight to rowbeat_operator;
    revoke insert, update, delete on freight.alert_event, freight.email_log, freight.billing_history, freight.billing_transfer_log,
        freight.invoice_number, freight.rate_counter, freight.rate_expiration_notice from rowbeat_operator;
    grant execute on function freight.alert_is_live(uuid, timestamptz), freight.grant_entitlement(uuid, text, timestamptz, timestamptz),
        freight.revoke_entitlement(uuid, text), freight.transfer_to_billing(uuid, text[]), freight.untransfer(uuid, text[]), freight.mark_ready_to_bill(),
        freight.bill_queue_row(uuid, uuid, bigint), freight.mass_bill(uuid, bigint), freight.auto_mass_billing_for_all_orgs(bigint) to rowbeat_operator;
end $$;
