import {
  Button, Field, makeStyles, MessageBar, MessageBarActions, MessageBarBody, MessageBarTitle, Select, SpinButton, Switch, Tag, TagGroup, Text, tokens,
} from '@fluentui/react-components'
import { useState } from 'react'
import { useTranslation } from 'react-i18next'
import { ApiError } from '../../api/client'
import { listGroups } from '../../api/policies'
import { saveUpgrades, type Package, type Ring, type Upgrades, type UpgradeSettings } from '../../api/upgrades'
import { useData } from '../../api/use'
import { useMay } from '../../app/session'
import { useNotify } from '../../app/toast'
import { useName } from '../../i18n/names'
import { Panel } from '../../ui/Panel'
import { PlainTable } from '../../ui/PlainTable'
import { useErrorText } from '../../ui/states'
import { LeaveGuard } from '../environment/LeaveGuard'

const useStyles = makeStyles({
  top: { display: 'flex', flexWrap: 'wrap', alignItems: 'flex-start', gap: tokens.spacingHorizontalXXL },
  dim: { color: tokens.colorNeutralForeground3 },
  groups: { display: 'flex', flexWrap: 'wrap', alignItems: 'center', gap: tokens.spacingHorizontalS },
  number: { width: '96px', minWidth: 0 },
  bar: { display: 'flex', flexWrap: 'wrap', alignItems: 'center', gap: tokens.spacingHorizontalM },
})

const draftOf = ({ automatic, target, rings }: Upgrades): UpgradeSettings => ({ automatic, target, rings })

interface Props {
  view: Upgrades
  saved: (view: Upgrades) => void
  reload: () => void
  packages: Package[]
}

/** Which version, and who gets it first: nothing changes until it is saved. */
export function RingsForm({ view, saved, reload, packages }: Props) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const notify = useNotify()
  const errorText = useErrorText()
  const may = useMay('plans.manage')
  const groups = useData('groups', listGroups, ['group'])
  const [base, setBase] = useState(view)
  const [draft, setDraft] = useState(() => draftOf(view))
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState<unknown>()
  const changed = JSON.stringify(draftOf(base)) !== JSON.stringify(draft)
  if (!changed && !busy && base.version !== view.version) {
    setBase(view)
    setDraft(draftOf(view))
  }
  const off = !may || busy
  const ring = (id: string, part: Partial<Ring>) => setDraft((old) => ({ ...old, rings: old.rings.map((r) => (r.id === id ? { ...r, ...part } : r)) }))
  const discard = () => {
    setError(undefined)
    setBase(view)
    setDraft(draftOf(view))
  }
  const save = () => {
    setBusy(true)
    setError(undefined)
    saveUpgrades({ ...draft, version: base.version }).then(
      (next) => {
        saved(next)
        setBase(next)
        setDraft(draftOf(next))
        notify('success', t('upgrade.saved'))
      },
      (e: unknown) => {
        setError(e)
        if (e instanceof ApiError && e.kind === 'conflict') reload()
      },
    ).finally(() => setBusy(false))
  }
  const conflict = error instanceof ApiError && error.kind === 'conflict'
  const versions = [...new Set([...packages.map((p) => p.version), ...(draft.target === 'newest' ? [] : [draft.target])])]
  const named = (id: string) => groups.data?.items.find((g) => g.id === id)?.name ?? id
  return (
    <Panel title={t('upgrade.settings')}>
      {error !== undefined && (
        <MessageBar intent="error" layout="multiline" role="alert" data-testid={conflict ? 'upgrade-conflict' : 'upgrade-error'}>
          <MessageBarBody>
            <MessageBarTitle>{conflict ? t('upgrade.conflict') : t('upgrade.failed')}</MessageBarTitle>
            {conflict ? t('policies.conflictText') : errorText(error)}
          </MessageBarBody>
          {conflict && (
            <MessageBarActions>
              <Button onClick={() => { setBase(view); setError(undefined) }}>{t('policies.keepMine')}</Button>
              <Button onClick={discard}>{t('policies.takeTheirs')}</Button>
            </MessageBarActions>
          )}
        </MessageBar>
      )}
      <div className={styles.top}>
        <Field label={t('upgrade.automatic')} hint={t('upgrade.automaticText')}>
          <Switch checked={draft.automatic} disabled={off} label={draft.automatic ? t('value.on') : t('value.off')} onChange={(_, d) => setDraft((old) => ({ ...old, automatic: d.checked }))} data-testid="upgrade-automatic" />
        </Field>
        <Field label={t('upgrade.target')}>
          <Select value={draft.target} disabled={off} onChange={(_, d) => setDraft((old) => ({ ...old, target: d.value }))} data-testid="upgrade-target">
            <option value="newest">{t('upgrade.newest')}</option>
            {versions.map((v) => <option key={v} value={v}>{v}</option>)}
          </Select>
        </Field>
      </div>
      <PlainTable<Ring>
        label={t('upgrade.rings')} items={draft.rings} rowId={(r) => r.id} rowTestid="ring-row"
        columns={[
          { id: 'ring', header: t('upgrade.ring'), tight: true, cell: (r) => name('ring', r.id) },
          {
            id: 'share', header: t('upgrade.share'), tight: true,
            cell: (r) => <SpinButton className={styles.number} value={r.share} min={0} max={100} disabled={off} aria-label={t('upgrade.shareOf', { ring: name('ring', r.id) })} input={{ 'data-testid': `ring-share-${r.id}` } as object} onChange={(_, d) => { const n = d.value ?? Number(d.displayValue); if (Number.isFinite(n)) ring(r.id, { share: Math.min(Math.max(n, 0), 100) }) }} />,
          },
          {
            id: 'groups', header: t('upgrade.groups'), cell: (r) => {
              const left = (groups.data?.items ?? []).filter((g) => !r.groups.includes(g.id))
              return (
                <div className={styles.groups}>
                  {r.groups.length === 0 && off && <Text className={styles.dim}>{t('upgrade.noGroups')}</Text>}
                  {r.groups.length > 0 && (
                    <TagGroup aria-label={t('upgrade.groupsOf', { ring: name('ring', r.id) })} onDismiss={(_, d) => ring(r.id, { groups: r.groups.filter((g) => g !== d.value) })}>
                      {r.groups.map((g) => <Tag key={g} value={g} size="small" dismissible={!off} dismissIcon={{ 'aria-label': t('upgrade.removeGroup', { name: named(g) }) }}>{named(g)}</Tag>)}
                    </TagGroup>
                  )}
                  {!off && left.length > 0 && (
                    <Select size="small" value="" aria-label={t('upgrade.addGroupTo', { ring: name('ring', r.id) })} onChange={(_, d) => d.value !== '' && ring(r.id, { groups: [...r.groups, d.value] })} data-testid={`ring-group-${r.id}`}>
                      <option value="">{t('upgrade.addGroup')}</option>
                      {left.map((g) => <option key={g.id} value={g.id}>{g.name}</option>)}
                    </Select>
                  )}
                </div>
              )
            },
          },
          {
            id: 'soak', header: t('upgrade.soak'), tight: true,
            cell: (r) => <SpinButton className={styles.number} value={r.soakMinutes} min={0} max={43_200} step={10} disabled={off} aria-label={t('upgrade.soakOf', { ring: name('ring', r.id) })} onChange={(_, d) => { const n = d.value ?? Number(d.displayValue); if (Number.isInteger(n)) ring(r.id, { soakMinutes: Math.min(Math.max(n, 0), 43_200) }) }} />,
          },
        ]}
      />
      <Text size={200} className={styles.dim}>{t('upgrade.ringsText')}</Text>
      <div className={styles.bar}>
        <Button appearance="primary" disabledFocusable={!may || !changed || busy} onClick={() => changed && save()} data-testid="upgrade-save">{t('action.save')}</Button>
        <Button disabled={!changed || busy} onClick={discard}>{t('action.discard')}</Button>
        {changed && <Text>{t('plan.unsaved')}</Text>}
      </div>
      <LeaveGuard when={changed && !busy} />
    </Panel>
  )
}
