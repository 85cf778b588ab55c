import { Badge, Field, Input, makeStyles, mergeClasses, Radio, RadioGroup, Select, SpinButton, Text, Textarea, tokens } from '@fluentui/react-components'
import { useTranslation } from 'react-i18next'
import { credentials, type Connector, type Credential, type SSH } from '../../../api/connectors'
import { useName } from '../../../i18n/names'
import { Copyable } from '../../../ui/Copy'
import { Panel } from '../../../ui/Panel'
import { elsewhere, type Draft } from './draft'
import { SecretField } from './SecretField'

const useStyles = makeStyles({
  row: { display: 'grid', gridTemplateColumns: 'minmax(160px, 1fr) 110px minmax(220px, 2fr) minmax(200px, 1.5fr)', alignItems: 'start', gap: tokens.spacingHorizontalL, '@media (max-width: 1000px)': { gridTemplateColumns: '1fr' } },
  mono: { fontFamily: tokens.fontFamilyMonospace, fontSize: tokens.fontSizeBase200 },
  ways: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalS, width: '100%' },
  way: { border: `1px solid ${tokens.colorNeutralStroke1}`, borderRadius: tokens.borderRadiusMedium, padding: '4px 12px 8px 4px' },
  chosen: { border: `1px solid ${tokens.colorCompoundBrandStroke}`, outline: `1px solid ${tokens.colorCompoundBrandStroke}` },
  about: { display: 'block', paddingLeft: '36px', color: tokens.colorNeutralForeground3, maxWidth: '90ch' },
  more: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalM, padding: '12px 8px 4px 36px' },
  head: { display: 'flex', alignItems: 'center', gap: tokens.spacingHorizontalS },
  copy: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalXS },
})

const sudos = ['none', 'passwordless', 'password'] as const
const policies = ['first_use', 'listed'] as const
const example = 'web[01-20].example.net role=web\nadmin@db[1-3].example.net:2222 role=db\n10.0.0.[5-9]'
const jumpExample = 'ops@bastion.example.net:22'
const sshd = 'TrustedUserCAKeys /etc/ssh/komainu_ca.pub'

/** Quotes a word for a shell. */
const quoted = (word: string) => (/^[\w@%+:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`)

interface Props {
  draft: Draft
  set: (part: Partial<Draft>) => void
  disabled: boolean
  connector?: Connector
  environment: string
}

/** Hosts, login, credential and host keys of an SSH connector. */
export function SSHFields({ draft, set, disabled, connector, environment }: Props) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const { ssh, secret } = draft
  const change = (part: Partial<SSH>) => set({ ssh: { ...ssh, ...part } })
  const conceal = (key: string) => (value: string) => set({ secret: { ...secret, [key]: value } })
  const stored = connector?.ssh
  const again = elsewhere(draft, connector)
  const command = `komainuctl deploy --environment ${quoted(environment)} --connector ${quoted(draft.name.trim() || t('connector.itsName'))}`
  const more: Record<Credential, React.ReactNode> = {
    push: (
      <div className={styles.copy}>
        <Text weight="semibold">{t('connector.pushCommand')}</Text>
        <Copyable text={command} label={t('connector.pushCommand')} testid="push-command" />
      </div>
    ),
    certificate: stored?.caPublicKey ? (
      <>
        <div className={styles.copy}>
          <Text weight="semibold">{t('connector.caKey')}</Text>
          <Copyable text={stored.caPublicKey} label={t('connector.caKey')} testid="ca-key" />
        </div>
        <div className={styles.copy}>
          <Text weight="semibold">{t('connector.sshdLine')}</Text>
          <Copyable text={sshd} label={t('connector.sshdLine')} testid="sshd-line" />
          <Text size={200}>{t('connector.sshdText')}</Text>
        </div>
      </>
    ) : <Text>{t('connector.caLater')}</Text>,
    key: (
      <>
        <SecretField label={t('connector.privateKey')} hint={t('connector.privateKeyHint')} stored={stored?.hasSecret ?? false} again={again} value={secret.privateKey ?? ''} set={conceal('privateKey')} disabled={disabled} long testid="connector-key" />
        {(!stored?.hasSecret || (secret.privateKey ?? '') !== '') && (
          <Field label={t('connector.passphrase')} hint={t('connector.passphraseHint')}>
            <Input type="password" autoComplete="new-password" value={secret.passphrase ?? ''} disabled={disabled} onChange={(_, d) => conceal('passphrase')(d.value)} input={{ 'data-testid': 'connector-passphrase' } as object} />
          </Field>
        )}
        {stored?.publicKey && (
          <div className={styles.copy}>
            <Text weight="semibold">{t('connector.publicKey')}</Text>
            <Copyable text={stored.publicKey} label={t('connector.publicKey')} testid="public-key" />
          </div>
        )}
      </>
    ),
  }
  return (
    <>
      <Panel title={t('connector.hosts')}>
        <Field label={t('connector.hostList')} hint={t('connector.hostsHint')} required>
          <Textarea value={ssh.hosts} rows={7} disabled={disabled} spellCheck={false} placeholder={example} resize="vertical" onChange={(_, d) => change({ hosts: d.value })} textarea={{ 'data-testid': 'connector-hosts', className: styles.mono } as object} />
        </Field>
      </Panel>
      <Panel title={t('connector.login')}>
        <div className={styles.row}>
          <Field label={t('connector.user')} hint={t('connector.userHint')}><Input value={ssh.user} maxLength={64} disabled={disabled} onChange={(_, d) => change({ user: d.value })} input={{ 'data-testid': 'connector-user' } as object} /></Field>
          <Field label={t('connector.port')}>
            <SpinButton value={ssh.port ?? 22} min={1} max={65_535} disabled={disabled} style={{ minWidth: 0 }} onChange={(_, d) => { const n = d.value ?? Number(d.displayValue); if (Number.isInteger(n)) change({ port: Math.min(Math.max(n, 1), 65_535) }) }} />
          </Field>
          <Field label={t('connector.jump')} hint={t('connector.jumpHint')}><Input value={ssh.jump ?? ''} maxLength={1024} disabled={disabled} placeholder={jumpExample} onChange={(_, d) => change({ jump: d.value })} input={{ 'data-testid': 'connector-jump' } as object} /></Field>
          <Field label={t('connector.sudo')}>
            <Select value={ssh.sudo} disabled={disabled} onChange={(_, d) => change({ sudo: d.value as SSH['sudo'] })} data-testid="connector-sudo">
              {sudos.map((s) => <option key={s} value={s}>{name('sudo', s)}</option>)}
            </Select>
          </Field>
        </div>
        {ssh.sudo === 'password' && ssh.credential !== 'push' && (
          <SecretField label={t('connector.sudoPassword')} stored={stored?.hasSudoPassword ?? false} again={again} value={secret.sudoPassword ?? ''} set={conceal('sudoPassword')} disabled={disabled} testid="connector-sudo-password" />
        )}
      </Panel>
      <Panel title={t('connector.credential')}>
        <RadioGroup value={ssh.credential} disabled={disabled} onChange={(_, d) => change({ credential: d.value as Credential })} aria-label={t('connector.credential')}>
          <div className={styles.ways}>
            {credentials.map((c) => (
              <div key={c} className={mergeClasses(styles.way, ssh.credential === c && styles.chosen)}>
                <div className={styles.head}>
                  <Radio value={c} label={name('credential', c)} data-testid={`credential-${c}`} />
                  {c === 'push' && <Badge appearance="tint">{t('connector.recommended')}</Badge>}
                </div>
                <Text size={200} className={styles.about}>{name('credentialAbout', c)}</Text>
                {ssh.credential === c && <div className={styles.more}>{more[c]}</div>}
              </div>
            ))}
          </div>
        </RadioGroup>
      </Panel>
      <Panel title={t('connector.hostKeyPolicy')}>
        <RadioGroup value={ssh.hostKeys} disabled={disabled} onChange={(_, d) => change({ hostKeys: d.value as SSH['hostKeys'] })} aria-label={t('connector.hostKeyPolicy')}>
          {policies.map((p) => <Radio key={p} value={p} label={name('hostKeys', p)} data-testid={`host-keys-${p}`} />)}
        </RadioGroup>
        {ssh.hostKeys === 'listed' && (
          <Field label={t('connector.knownHosts')} hint={t('connector.knownHostsHint')}>
            <Textarea value={ssh.knownHosts ?? ''} rows={5} disabled={disabled} spellCheck={false} onChange={(_, d) => change({ knownHosts: d.value })} textarea={{ 'data-testid': 'connector-known', className: styles.mono } as object} />
          </Field>
        )}
      </Panel>
    </>
  )
}
