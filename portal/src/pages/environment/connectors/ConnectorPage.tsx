import {
  Badge, Button, Field, Input, makeStyles, MessageBar, MessageBarActions, MessageBarBody, MessageBarTitle, Text, tokens,
} from '@fluentui/react-components'
import { useState } from 'react'
import { useTranslation } from 'react-i18next'
import { useNavigate, useParams, useSearchParams } from 'react-router'
import { getEnvironment } from '../../../api/calls'
import { ApiError } from '../../../api/client'
import {
  connectorKinds, createConnector, deleteConnector, getConnector, saveConnector, testConnector, testNewConnector, type Connector, type ConnectorChange, type ConnectorKind, type TestReport,
} from '../../../api/connectors'
import { useData } from '../../../api/use'
import { useMay } from '../../../app/session'
import { useNotify } from '../../../app/toast'
import { useName } from '../../../i18n/names'
import { Moment } from '../../../ui/marks'
import { Page } from '../../../ui/Page'
import { Panel } from '../../../ui/Panel'
import { ReasonNote } from '../../../ui/reasons'
import { Failure, Loading, useErrorText } from '../../../ui/states'
import { Confirm } from '../Confirm'
import { LeaveGuard } from '../LeaveGuard'
import { CloudFields } from './CloudFields'
import { changeOf, draftOf, lacks, sameDraft, type Draft } from './draft'
import { HostKeys } from './HostKeys'
import { SSHFields } from './SSHFields'
import { Tested } from './Tested'

const useStyles = makeStyles({
  form: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalL },
  name: { maxWidth: '420px' },
  bar: {
    position: 'sticky', bottom: 0, display: 'flex', flexWrap: 'wrap', alignItems: 'center', gap: tokens.spacingHorizontalM, zIndex: 1,
    padding: '12px 20px', backgroundColor: tokens.colorNeutralBackground1, border: `1px solid ${tokens.colorNeutralStroke2}`, borderRadius: tokens.borderRadiusLarge,
  },
  end: { marginLeft: 'auto', color: tokens.colorNeutralForeground3 },
})

/** One connector, or a new one. */
export default function ConnectorPage() {
  const { t } = useTranslation()
  const { id = '', connector = '' } = useParams()
  const [parameters] = useSearchParams()
  const fresh = connector === 'new'
  const environment = useData(`environment ${id}`, (signal) => getEnvironment(id, signal), [])
  const data = useData(`connector ${connector}`, (signal) => (fresh ? Promise.resolve(undefined) : getConnector(connector, signal)), fresh ? [] : [`connector:${connector}`])
  const error = environment.error ?? data.error
  if (!environment.data || (!fresh && !data.data)) {
    return (
      <Page title={t('connector.one')} crumbs={[{ to: '/environments', label: t('nav.environments') }]}>
        {error ? <Failure error={error} retry={() => { environment.reload(); data.reload() }} /> : <Loading />}
      </Page>
    )
  }
  const kind = connectorKinds.find((k) => k === parameters.get('kind')) ?? 'ssh'
  return <ConnectorForm key={connector} environment={environment.data} connector={data.data} kind={data.data?.kind ?? kind} reload={data.reload} saved={data.set} />
}

interface Props {
  environment: { id: string; name: string }
  connector?: Connector
  kind: ConnectorKind
  reload: () => void
  saved: (connector: Connector) => void
}

function ConnectorForm({ environment, connector, kind, reload, saved }: Props) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const notify = useNotify()
  const navigate = useNavigate()
  const errorText = useErrorText()
  const may = useMay('plans.manage')
  // What the draft began with: a newer connector is taken only while nothing
  // is changed here.
  const [base, setBase] = useState(connector)
  const [draft, setDraft] = useState<Draft>(() => draftOf(kind, connector))
  const [busy, setBusy] = useState<'save' | 'test'>()
  const [error, setError] = useState<unknown>()
  const [report, setReport] = useState<TestReport>()
  const [untested, setUntested] = useState<unknown>()
  const [deleting, setDeleting] = useState(false)
  const changed = !sameDraft(draftOf(kind, base), draft)
  if (!changed && !busy && base?.version !== connector?.version) {
    setBase(connector)
    setDraft(draftOf(kind, connector))
  }
  const set = (part: Partial<Draft>) => setDraft((old) => ({ ...old, ...part }))
  const discard = () => {
    setError(undefined)
    setBase(connector)
    setDraft(draftOf(kind, connector))
  }
  const home = `/environments/${environment.id}?tab=connectors`
  const body = (): ConnectorChange => changeOf(kind, draft, base)
  const save = () => {
    setBusy('save')
    setError(undefined)
    const call = base ? saveConnector(base.id, body()) : createConnector(environment.id, body())
    call.then(
      (next) => {
        setBase(next)
        setDraft(draftOf(kind, next))
        notify('success', t('connector.saved', { name: next.name }), t('connector.savedText', { count: next.machines }))
        if (base) saved(next)
        else window.setTimeout(() => void navigate(`/environments/${environment.id}/connectors/${next.id}`, { replace: true }))
      },
      (e: unknown) => {
        setError(e)
        if (e instanceof ApiError && e.kind === 'conflict') reload()
      },
    ).finally(() => setBusy(undefined))
  }
  const test = () => {
    setBusy('test')
    setReport(undefined)
    setUntested(undefined)
    const call = base ? testConnector(base.id, body()) : testNewConnector(environment.id, body())
    call.then(setReport, setUntested).finally(() => setBusy(undefined))
  }
  const remove = () => {
    setDeleting(false)
    if (!base) return
    deleteConnector(base.id).then(
      () => {
        notify('success', t('connector.deleted', { name: base.name }))
        discard()
        window.setTimeout(() => void navigate(home))
      },
      (e: unknown) => notify('error', t('connector.failed'), errorText(e)),
    )
  }
  const conflict = error instanceof ApiError && error.kind === 'conflict' && base !== undefined && connector?.version !== base.version
  const disabled = !may || busy !== undefined
  const untestable = draft.ssh.credential === 'push' ? t('connector.testPush') : draft.ssh.credential === 'certificate' && !base ? t('connector.testCertificate') : undefined
  const reasonNotToTest = kind === 'ssh' ? untestable : undefined
  const lacking = lacks(kind, draft)
  return (
    <Page
      title={base?.name ?? t('connector.new', { kind: name('connectorKind', kind) })}
      crumbs={[{ to: '/environments', label: t('nav.environments') }, { to: home, label: environment.name }]}
      subtitle={(
        <Text>
          {name('connectorKindAbout', kind)}{' '}
          {kind !== 'ssh' && <Badge appearance="outline" color="warning" data-testid="connector-unverified">{t('connector.unverified')}</Badge>}
        </Text>
      )}
      actions={base && may && <Button onClick={() => setDeleting(true)} disabled={busy !== undefined} data-testid="connector-delete">{t('connector.delete')}</Button>}
    >
      <div className={styles.form}>
        {!may && <MessageBar><MessageBarBody>{t('connector.readOnly')}</MessageBarBody></MessageBar>}
        {base?.error && <ReasonNote reason={base.error} intent="error" />}
        {error !== undefined && (
          <MessageBar intent="error" layout="multiline" role="alert" data-testid={conflict ? 'connector-conflict' : 'connector-error'}>
            <MessageBarBody>
              <MessageBarTitle>{conflict ? t('connector.conflict') : t('connector.failed')}</MessageBarTitle>
              {conflict ? t('policies.conflictText') : errorText(error)}
            </MessageBarBody>
            {conflict && (
              <MessageBarActions>
                <Button onClick={() => { setBase(connector); setError(undefined) }} data-testid="connector-keep">{t('policies.keepMine')}</Button>
                <Button onClick={discard} data-testid="connector-theirs">{t('policies.takeTheirs')}</Button>
              </MessageBarActions>
            )}
          </MessageBar>
        )}
        <Panel title={t('connector.basics')}>
          <Field label={t('connector.name')} required className={styles.name}>
            <Input value={draft.name} maxLength={100} disabled={disabled} onChange={(_, d) => set({ name: d.value })} input={{ 'data-testid': 'connector-name' } as object} />
          </Field>
        </Panel>
        {kind === 'ssh'
          ? <SSHFields draft={draft} set={set} disabled={disabled} connector={base} environment={environment.name} />
          : <CloudFields kind={kind} draft={draft} set={set} disabled={disabled} connector={base} />}
        <Tested report={report} error={untested} busy={busy === 'test'} hint={reasonNotToTest} />
        {base && kind === 'ssh' && base.ssh?.hostKeys === 'first_use' && <HostKeys connector={base.id} />}
        <div className={styles.bar}>
          <Button appearance="primary" disabledFocusable={!may || !changed || lacking || busy !== undefined} onClick={() => changed && !lacking && save()} data-testid="connector-save">{t('action.save')}</Button>
          <Button disabledFocusable={!may || lacking || busy !== undefined || reasonNotToTest !== undefined} onClick={() => reasonNotToTest === undefined && !lacking && test()} data-testid="connector-test">{busy === 'test' ? t('connector.testing') : t('connector.test')}</Button>
          <Button disabled={!changed || busy !== undefined} onClick={discard} data-testid="connector-discard">{t('action.discard')}</Button>
          {changed && <Text>{t('plan.unsaved')}</Text>}
          {base?.updatedBy && <Text size={200} className={styles.end}>{t('plan.lastSaved', { name: base.updatedBy })} <Moment time={base.updatedAt} /></Text>}
        </div>
      </div>
      {deleting && base && <Confirm title={t('connector.deleteTitle', { name: base.name })} text={t('connector.deleteText', { count: base.machines })} act={t('connector.delete')} confirm={remove} close={() => setDeleting(false)} />}
      <LeaveGuard when={changed && !busy} />
    </Page>
  )
}
