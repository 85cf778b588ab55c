import { Button, Field, Input, makeStyles, MessageBar, MessageBarActions, MessageBarBody, MessageBarTitle, SpinButton, Text, tokens } from '@fluentui/react-components'
import { useState } from 'react'
import { useTranslation } from 'react-i18next'
import { useNavigate, useParams, useSearchParams } from 'react-router'
import { ApiError } from '../../api/client'
import { createPolicy, deletePolicy, getCatalogue, getPolicy, savePolicy, type CatalogueSetting, type Policy, type PolicyChange, type PolicyType } from '../../api/policies'
import { useData } from '../../api/use'
import { useMay } from '../../app/session'
import { useNotify } from '../../app/toast'
import { useFormat, useName } from '../../i18n/names'
import { Moment } from '../../ui/marks'
import { Page } from '../../ui/Page'
import { Panel } from '../../ui/Panel'
import { Failure, Loading, useErrorText } from '../../ui/states'
import { Confirm } from '../environment/Confirm'
import { LeaveGuard } from '../environment/LeaveGuard'
import { Assignments } from './Assignments'
import { Confirmation } from './Policies'
import { SettingField } from './SettingField'

const useStyles = makeStyles({
  form: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalL },
  basics: { display: 'grid', gridTemplateColumns: 'minmax(200px, 2fr) minmax(200px, 3fr) 160px', alignItems: 'start', gap: tokens.spacingHorizontalL, '@media (max-width: 900px)': { gridTemplateColumns: '1fr' } },
  dim: { color: tokens.colorNeutralForeground3 },
  bar: {
    position: 'sticky', bottom: 0, display: 'flex', flexWrap: 'wrap', alignItems: 'center', gap: tokens.spacingHorizontalM, zIndex: 1,
    padding: '12px 20px', backgroundColor: tokens.colorNeutralBackground1, border: `1px solid ${tokens.colorNeutralStroke2}`, borderRadius: tokens.borderRadiusLarge,
  },
  end: { marginLeft: 'auto', color: tokens.colorNeutralForeground3 },
})

const types: PolicyType[] = ['antivirus', 'exclusions', 'edr']

/** One policy, or a new one. */
export default function PolicyPage() {
  const { t } = useTranslation()
  const { id = '' } = useParams()
  const [parameters] = useSearchParams()
  const fresh = id === 'new'
  const catalogue = useData('catalogue', getCatalogue)
  const policy = useData(`policy ${id}`, (signal) => (fresh ? Promise.resolve(undefined) : getPolicy(id, signal)), fresh ? [] : [`policy:${id}`, 'group', 'device'], 1_000)
  const error = catalogue.error ?? policy.error
  if (!catalogue.data || (!fresh && !policy.data)) {
    return (
      <Page title={t('policies.one')} crumbs={[{ to: '/policies', label: t('nav.policies') }]}>
        {error ? <Failure error={error} retry={() => { catalogue.reload(); policy.reload() }} /> : <Loading />}
      </Page>
    )
  }
  const type = types.find((kind) => kind === parameters.get('type')) ?? 'antivirus'
  return <PolicyForm key={id} policy={policy.data} type={policy.data?.type ?? type} catalogue={catalogue.data.settings} reload={policy.reload} saved={policy.set} />
}

interface Props {
  policy?: Policy
  type: PolicyType
  catalogue: CatalogueSetting[]
  reload: () => void
  saved: (policy: Policy) => void
}

const draftOf = (type: PolicyType, policy?: Policy): PolicyChange => ({
  name: policy?.name ?? '', description: policy?.description ?? '', type, priority: policy?.priority ?? 100,
  assignments: policy?.assignments ?? [], settings: policy?.settings ?? {},
})

function PolicyForm({ policy, type, catalogue, reload, saved }: Props) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const format = useFormat()
  const notify = useNotify()
  const navigate = useNavigate()
  const errorText = useErrorText()
  const may = useMay('policies.manage')
  // What the draft began with: a newer policy is taken only while nothing is
  // changed here.
  const [base, setBase] = useState(policy)
  const [draft, setDraft] = useState(() => draftOf(type, policy))
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState<unknown>()
  const [deleting, setDeleting] = useState(false)
  const changed = JSON.stringify(draftOf(type, base)) !== JSON.stringify(draft)
  if (!changed && !busy && base?.version !== policy?.version) {
    setBase(policy)
    setDraft(draftOf(type, policy))
  }
  const set = (change: Partial<PolicyChange>) => setDraft((old) => ({ ...old, ...change }))
  const discard = () => {
    setError(undefined)
    setBase(policy)
    setDraft(draftOf(type, policy))
  }
  const save = () => {
    setBusy(true)
    setError(undefined)
    const settings = Object.fromEntries(Object.entries(draft.settings).filter(([, value]) => value !== undefined))
    const body = { ...draft, name: draft.name.trim(), settings, assignments: draft.assignments.map(({ kind, id }) => ({ kind, id })) }
    const call = base ? savePolicy(base.id, { ...body, version: base.version }) : createPolicy(body)
    call.then(
      (next) => {
        setBase(next)
        setDraft(draftOf(type, next))
        notify('success', t('policies.saved'), t('policies.savedText', { name: next.name }))
        if (base) saved(next)
        else window.setTimeout(() => void navigate(`/policies/${next.id}`, { replace: true }))
      },
      (e: unknown) => {
        setError(e)
        if (e instanceof ApiError && e.kind === 'conflict') reload()
      },
    ).finally(() => setBusy(false))
  }
  const remove = () => {
    setDeleting(false)
    setBusy(true)
    deletePolicy(base!.id).then(
      () => {
        setDraft(draftOf(type, base))
        notify('success', t('policies.deleted', { name: base!.name }))
        window.setTimeout(() => void navigate('/policies', { replace: true }))
      },
      (e: unknown) => {
        setError(e)
        setBusy(false)
      },
    )
  }
  const conflict = error instanceof ApiError && error.kind === 'conflict' && base !== undefined
  const message = error === undefined ? '' : errorText(error)
  const settings = catalogue.filter((s) => s.section === type)
  const problemOf = (s: CatalogueSetting) => (error instanceof ApiError && error.message.includes(s.name) ? error.message : undefined)
  return (
    <Page
      title={base?.name ?? t('policies.new', { type: name('policyType', type) })} crumbs={[{ to: '/policies', label: t('nav.policies') }]}
      subtitle={<Text className={styles.dim}>{name('policyTypeAbout', type)}</Text>}
      actions={base && may && <Button onClick={() => setDeleting(true)} disabled={busy} data-testid="policy-delete">{t('policies.delete')}</Button>}
    >
      <div className={styles.form}>
        {!may && <MessageBar><MessageBarBody>{t('policies.readOnly')}</MessageBarBody></MessageBar>}
        {error !== undefined && (
          <MessageBar intent="error" layout="multiline" role="alert" data-testid={conflict ? 'policy-conflict' : 'policy-error'}>
            <MessageBarBody>
              <MessageBarTitle>{conflict ? t('policies.conflict') : t('policies.failed')}</MessageBarTitle>
              {conflict ? t('policies.conflictText') : message}
            </MessageBarBody>
            {conflict && (
              <MessageBarActions>
                <Button onClick={() => { setBase(policy); setError(undefined) }} data-testid="policy-keep">{t('policies.keepMine')}</Button>
                <Button onClick={discard} data-testid="policy-reload">{t('policies.takeTheirs')}</Button>
              </MessageBarActions>
            )}
          </MessageBar>
        )}
        <Panel title={t('policies.basics')}>
          <div className={styles.basics}>
            <Field label={t('policies.name')} required>
              <Input value={draft.name} maxLength={200} disabled={!may || busy} onChange={(_, d) => set({ name: d.value })} input={{ 'data-testid': 'policy-name' } as object} />
            </Field>
            <Field label={t('policies.description')}>
              <Input value={draft.description} maxLength={2000} disabled={!may || busy} onChange={(_, d) => set({ description: d.value })} />
            </Field>
            <Field label={t('policies.priority')} hint={t('policies.priorityHint')}>
              <SpinButton value={draft.priority} min={0} max={10_000} disabled={!may || busy} onChange={(_, d) => { const n = d.value ?? Number(d.displayValue); if (Number.isInteger(n)) set({ priority: Math.min(Math.max(n, 0), 10_000) }) }} />
            </Field>
          </div>
        </Panel>
        <Panel title={t('policies.assignedTo')} actions={base && <Confirmation policy={base} />}>
          <Assignments value={draft.assignments} set={(assignments) => set({ assignments })} disabled={!may || busy} />
        </Panel>
        <Panel title={t('policies.settings')}>
          <Text className={styles.dim}>{t('policies.settingsText')}</Text>
          <div>
            {settings.map((s) => (
              <SettingField
                key={`${s.name} ${base?.version ?? 0}`} setting={s} value={draft.settings[s.name]} disabled={!may || busy} problem={problemOf(s)}
                set={(value) => setDraft((old) => {
                  const { [s.name]: _, ...others } = old.settings
                  return { ...old, settings: value === undefined ? others : { ...others, [s.name]: value } }
                })}
              />
            ))}
          </div>
        </Panel>
        <div className={styles.bar}>
          <Button appearance="primary" disabledFocusable={!may || !changed || busy || draft.name.trim() === ''} onClick={save} data-testid="policy-save">{t('action.save')}</Button>
          <Button disabled={!changed || busy} onClick={discard} data-testid="policy-discard">{t('action.discard')}</Button>
          {changed && <Text>{t('plan.unsaved')}</Text>}
          {base && <Text size={200} className={styles.end}>{t('policies.version', { version: format.number(base.version), name: base.updatedBy })} <Moment time={base.updatedAt} /></Text>}
        </div>
      </div>
      {deleting && base && (
        <Confirm
          title={t('policies.deleteTitle', { name: base.name })} text={t('policies.deleteText', { count: base.devices.assigned })} act={t('policies.delete')}
          confirm={remove} close={() => setDeleting(false)}
        />
      )}
      <LeaveGuard when={changed && !busy} />
    </Page>
  )
}
